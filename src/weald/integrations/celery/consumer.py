"""The worker's main loop on weald.

Called by: Celery (`LoopStep` is one of its consumer's bootsteps), pool.py, alias_pool.py.

The loop does what Celery's `synloop` does, and more: heartbeat timers end with their connection, and the worker's
state is checked twice a second.  Only the loop's greenlet reads the consumer's connection.
"""

from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.platforms import EX_OK
from celery.utils.log import get_logger
from celery.worker import state
from kombu import Connection

from weald._core import Semaphore, sleep
from weald.integrations.celery.amqp import leave_prefetching_to_the_loop
from weald.integrations.celery.batches import batch_acknowledgements
from weald.integrations.celery.fetch import fetcher, note_for_certain

__all__ = ["LoopStep", "listen", "loop"]

logger = get_logger("celery.pool")

CHECK_INTERVAL = 0.5  # seconds between checks of the worker's state
TRIM_DELAY = 2.0  # seconds after the start until connections that only the start needed are closed


class LoopStep(bootsteps.Step):
    """Gives the consumer the loop of its pool (`consumer_loop`); if the pool has none, wraps Celery's loop."""

    def __init__(self, c: Any, **kwargs: Any) -> None:
        pool_loop = getattr(c.pool, "consumer_loop", None)
        if pool_loop is not None:
            c.loop = pool_loop
            if hasattr(c, "call_soon_ack"):
                c.call_soon_ack = _bounded(c.call_soon_ack)
            else:
                c.call_soon = _at_once(c.call_soon)
        else:
            c.loop = _noticing(c.loop)
        leave_prefetching_to_the_loop(c)
        super().__init__(c, **kwargs)


def _bounded(call_soon_ack: Callable[..., Any]) -> Callable[..., Any]:
    """Let anything but acknowledgements (rejects, say) run one at a time, because each takes a connection.

    Acknowledgements are batched.
    """
    slot = Semaphore(1)

    def bounded(call: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == "ack_log_error":
            return call_soon_ack(call, *args, **kwargs)
        with slot:
            return call_soon_ack(call, *args, **kwargs)

    return bounded


def _at_once(call_soon: Callable[..., Any]) -> Callable[..., Any]:
    """Acknowledge at once.  Celery before 5.7 puts acknowledgements off until the next round of its loop."""

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
    _prepare(c, consumer)
    errors: list[BaseException] = []
    entries = []
    dispatcher = c.event_dispatcher
    for conn in (connection, dispatcher.connection if dispatcher else None):
        if conn is not None:
            entry = _start_heartbeat(c.timer, conn, hbrate, errors, drain=conn is not connection)
            if entry is not None:
                entries.append(entry)
    try:
        consumer.on_message = c.create_task_handler()
        consumer.consume()
        c.on_ready()
        fetch = fetcher(consumer)
        if fetch is not None:
            c.timer.call_after(TRIM_DELAY, trim_connections, (c,))
        while blueprint.state == bootsteps.RUN and c.connection:
            if state.should_terminate is True:  # Celery's cold shutdown sets this first, and the exit status later
                state.should_terminate = EX_OK
            state.maybe_shutdown()
            if errors:
                raise errors[0]
            _check_connected(connection)
            if qos.prev != qos.value:
                qos.update()
            c.perform_pending_operations()
            try:
                room = fetch is None or fetch.wait_for_room(CHECK_INTERVAL)
                connection.drain_events(timeout=CHECK_INTERVAL if room else 0.0)
                if fetch is not None:
                    fetch()
            except TimeoutError:
                pass
            except OSError:
                if blueprint.state == bootsteps.RUN:
                    raise
    except BaseException as error:
        if isinstance(error, Exception):
            _cancel(c.timer, entries)  # not at a shutdown: heartbeats go on until the worker's tasks have ended
        raise


def _prepare(c: Any, consumer: Any) -> None:
    """Prepare kombu's `consumer` to take messages; Celery's consumer `c` has just connected."""
    batch_acknowledgements(consumer.channel, vars(c).setdefault("weald_not_acknowledged", []))
    note_for_certain(c, consumer.channel)


def _noticing(celery_loop: Callable[..., None]) -> Callable[..., None]:
    """Celery's loop, with messages taken off Redis as in `loop`.

    A broken connection ends it even if another greenlet has noticed the break first.
    """

    def noticing(c: Any, connection: Any, consumer: Any, *args: Any, **kwargs: Any) -> None:
        _prepare(c, consumer)
        connection.heartbeat_check = _checked(connection, connection.heartbeat_check)
        drain, fetch = _checked(connection, connection.drain_events), fetcher(consumer)

        def drain_events(timeout: float | None = None, **options: Any) -> Any:
            if fetch is None:
                return drain(timeout=timeout, **options)
            room = fetch.wait_for_room(CHECK_INTERVAL)
            drained = drain(timeout=timeout if room else 0.0, **options)
            fetch()
            return drained

        connection.drain_events = drain_events
        celery_loop(c, connection, consumer, *args, **kwargs)

    return noticing


def _checked(connection: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check_connected(connection)
        return method(*args, **kwargs)

    return checked


def _check_connected(connection: Any) -> None:
    """Raise ConnectionResetError if the connection is closed.

    When a greenlet that writes has found it broken, kombu would silently connect again, without a consumer.
    """
    if not connection.connected:
        raise ConnectionResetError("the connection to the broker is broken")


def _cancel(timer: Any, entries: list[Any]) -> None:
    for entry in entries:
        timer.cancel(entry)


def _start_heartbeat(timer: Any, connection: Any, rate: float, errors: list[BaseException], drain: bool) -> Any:
    """The timer entry that sends the broker's heartbeats; None if there are none.

    With `drain`, the timer also reads what the broker sends, because no other greenlet does.
    """
    interval = connection.get_heartbeat_interval()
    if not (interval and connection.supports_heartbeats):
        return None

    def tick() -> None:
        try:
            _check_connected(connection)
            if drain:
                try:
                    connection.drain_events(timeout=0.001)
                except TimeoutError:
                    pass
            connection.heartbeat_check(rate)
        except Exception as error:
            errors.append(error)

    return timer.call_repeatedly(interval / rate, tick)


def listen(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Run Celery's listener for remote control; run it again if its own connection breaks, and only that."""
    step: Any = getattr(function, "__self__", None)
    c = args[0] if args else None
    while True:
        try:
            function(*args, **kwargs)
            return
        except Exception as error:
            stop = getattr(step, "_node_shutdown", None)
            sleep(CHECK_INTERVAL * 2)  # if the loop's connection is broken too, Celery starts another listener
            if stop is None or stop.is_set() or step._node_shutdown is not stop or not getattr(c, "connection", None):
                return
            logger.warning("the connection for remote control is broken: %r", error)


def trim_connections(c: Any) -> None:
    """Close unused connections to Redis: each of kombu's channels has opened one or two at the start.

    A channel that needs one later connects again.
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
