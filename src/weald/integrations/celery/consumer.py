"""The worker's main loop on weald.

Called by: Celery (`LoopStep` is one of its consumer's bootsteps), pool.py.

The loop is Celery's `synloop` but for what that does not do: its heartbeat timers end with the connection they are
for, frames on a connection that several greenlets write to are written one after the other, and it looks at the
worker's state twice a second.
"""

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu import Connection

from weald._core import RLock, Semaphore
from weald.integrations.celery.batches import batch_acknowledgements
from weald.integrations.celery.fetch import fetcher

__all__ = ["LoopStep", "loop"]

logger = get_logger("celery.pool")

LOOK = 0.5  # seconds between looks at the worker's state
TRIM = 2.0  # seconds after the start until connections that only the start needed are closed


class LoopStep(bootsteps.Step):
    """Gives the consumer the loop of its pool, if that has one (`consumer_loop`)."""

    def __init__(self, c: Any, **kwargs: Any) -> None:
        pool_loop = getattr(c.pool, "consumer_loop", None)
        if pool_loop is not None:
            c.loop = pool_loop
            if hasattr(c, "call_soon_ack"):
                c.call_soon_ack = _bounded(c.call_soon_ack)
            else:
                c.call_soon = _at_once(c.call_soon)
        super().__init__(c, **kwargs)


def _bounded(call_soon_ack: Callable[..., Any]) -> Callable[..., Any]:
    """Acknowledgements go in batches; of anything else, rejects say, only one at once: each takes a connection."""
    slot = Semaphore(1)

    def bounded(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == "ack_log_error":
            return call_soon_ack(call, *args, **kwargs)
        with slot:
            return call_soon_ack(call, *args, **kwargs)

    return bounded


def _at_once(call_soon: Callable[..., Any]) -> Callable[..., Any]:
    """Celery before 5.7 puts acknowledgements off until its loop comes round; here they happen when they are due."""

    def do(call: Any, *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            logger.exception("a message could not be acknowledged: %r", error)

    bounded = _bounded(do)

    def sorted_out(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") in ("ack_log_error", "reject_log_error"):
            return bounded(call, *args, **kwargs)
        return call_soon(call, *args, **kwargs)

    return sorted_out


def loop(
    c: Any, connection: Any, consumer: Any, blueprint: Any, hub: Any, qos: Any, heartbeat: Any, clock: Any,
    hbrate: float = 2.0, **kwargs: Any,
) -> None:
    """Consume until the blueprint is closed.  Raises the connection's errors; Consumer.start connects again."""
    batch_acknowledgements(consumer.channel)
    errors: list[BaseException] = []
    entries = []
    dispatcher = c.event_dispatcher
    for conn in (connection, dispatcher.connection if dispatcher else None):
        if conn is not None:
            _serialize_frames(conn)
            entry = _start_heartbeat(c.timer, conn, hbrate, errors, drain=conn is not connection)
            if entry is not None:
                entries.append(entry)
    try:
        consumer.on_message = c.create_task_handler()
        consumer.consume()
        c.on_ready()
        fetch = fetcher(consumer)
        if fetch is not None:
            c.timer.call_after(TRIM, trim_connections, (c,))
        while blueprint.state == bootsteps.RUN and c.connection:
            state.maybe_shutdown()
            if errors:
                raise errors[0]
            if qos.prev != qos.value:
                qos.update()
            c.perform_pending_operations()
            try:
                connection.drain_events(timeout=LOOK)
                if fetch is not None:
                    fetch()
            except TimeoutError:
                pass
            except OSError:
                if blueprint.state == bootsteps.RUN:
                    raise
    except BaseException as error:
        if isinstance(error, Exception):
            _cancel(c.timer, entries)  # else the worker shuts down: they beat until its tasks have ended
        raise


def _cancel(timer: Any, entries: list[Any]) -> None:
    for entry in entries:
        timer.cancel(entry)


def _start_heartbeat(timer: Any, connection: Any, rate: float, errors: list[BaseException], drain: bool) -> Any:
    """The timer entry that sends the broker's heartbeats; None if there are none.

    With `drain`, nobody else reads what the broker sends on the connection.
    """
    interval = connection.get_heartbeat_interval()
    if not (interval and connection.supports_heartbeats):
        return None

    def tick() -> None:
        try:
            if drain:
                try:
                    connection.drain_events(timeout=0.001)
                except TimeoutError:
                    pass
            connection.heartbeat_check(rate)
        except Exception as error:
            errors.append(error)

    return timer.call_repeatedly(interval / rate, tick)


def _serialize_frames(connection: Any) -> None:
    """Have py-amqp write whole frames, whichever greenlets write: it keeps one buffer per connection."""
    amqp = connection.connection
    write = getattr(amqp, "frame_writer", None)
    if write is None or hasattr(write, "weald_lock"):
        return
    lock = RLock()

    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return write(*args, **kwargs)

    locked.weald_lock = lock  # type: ignore[attr-defined]
    amqp.frame_writer = locked


def trim_connections(c: Any) -> None:
    """Close the connections to Redis that nothing uses: each of kombu's channels has opened one or two at the start.

    What is needed again connects again.
    """
    transports = [c.connection and c.connection.transport]
    if c.event_dispatcher and c.event_dispatcher.connection:
        transports.append(c.event_dispatcher.connection.transport)
    for step in c.blueprint.order:
        channel = step.box.node.channel if hasattr(step, "box") else None
        transports.append(channel and channel.connection)
    pool = c.app.pool  # of those that messages are sent on
    for connection in (*pool._dirty, *pool._resource.queue):
        transports.append(isinstance(connection, Connection) and connection.connected and connection.transport)
    for transport in transports:
        for channel in (*getattr(transport, "channels", ()), *getattr(transport, "_avail_channels", ())):
            for pool in getattr(channel, "_pool", None), getattr(channel, "_async_pool", None):
                if pool is not None:
                    pool.disconnect(inuse_connections=False)
