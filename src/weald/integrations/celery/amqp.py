"""AMQP connections that many greenlets of a worker share.

Called by: `weald.integrations.celery`, when the pool is imported from it; alias_pool.py.

py-amqp has one buffer for reading and one for writing per connection, and expects the broker's answers in the order of
its requests.  `arrange` makes kombu use connection classes that are safe for greenlets.

Invariants:
- One greenlet reads a connection at a time.  Others that want to read wait until it has read a message, then check
  whether their answer has come.
- A wait with a timeout ends on time, even if the broker's heartbeats come more often than that.
- Frames are written one after the other.  If a frame is written in part only, the connection is shut down.
- The connection is shut down if the broker does not answer, or does not take a frame, within `ANSWER` seconds, or sends
  no heartbeats: every greenlet that waits on it gets an error, and kombu connects again.
- Only the greenlet of the consumer's loop asks the broker to change the consumer's prefetch count.
- An event (a worker's heartbeat, say) is sent once, without retries: Celery holds a lock while it sends one, and kombu
  would retry for ever on a channel of the old connection.  Celery keeps an event that fails, and sends it when its
  consumer has connected again.
"""

import _socket
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.events.dispatcher import EventDispatcher
from greenlet import getcurrent

from weald._core import Event, RLock, Timeout, monotonic

__all__ = ["arrange", "leave_prefetching_to_the_loop"]

ANSWER = 60.0  # seconds that a broker has for an answer, or for taking a frame
FOR_EVER = 1e9  # seconds


def arrange() -> None:
    """Have kombu make AMQP connections that greenlets may share."""
    try:
        from kombu.transport import pyamqp
    except ImportError:
        return
    if not hasattr(pyamqp.Transport.Connection, "weald_reader"):
        pyamqp.Transport.Connection = _shared(pyamqp.Transport.Connection)
        EventDispatcher._publish = _once(EventDispatcher._publish)


def _once(publish: Callable[..., Any]) -> Callable[..., Any]:
    """`EventDispatcher._publish` without retries."""

    def once(self: Any, event: Any, producer: Any, routing_key: str, retry: bool = False, **kwargs: Any) -> Any:
        return publish(self, event, producer, routing_key, **kwargs)

    return once


def _channel(channel_class: Any) -> Any:
    """A subclass of py-amqp's `Channel`."""

    class Channel(channel_class):
        def wait(self, *args: Any, **kwargs: Any) -> Any:
            with _answered(self.connection):
                return super().wait(*args, **kwargs)

    return Channel


def _shared(connection_class: Any) -> Any:
    """A subclass of py-amqp's `Connection`."""

    class Connection(connection_class):
        weald_reader: Any = None  # the greenlet that reads

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._was_read = Event()
            self._writing = RLock()
            make = getattr(self, "frame_writer_cls")  # noqa: B009  py-amqp declares another type
            self.frame_writer_cls = lambda connection, transport: partial(
                self._write_frame, make(connection, transport), transport
            )

        def drain_events(self, timeout: float | None = None) -> None:
            if timeout is None:
                timeout = FOR_EVER  # else py-amqp takes whatever timeout the socket has
            current = getcurrent()
            if self.weald_reader is not None and self.weald_reader is not current:
                if not self._was_read.wait(timeout):
                    raise TimeoutError("timed out")
                return
            outer, self.weald_reader = self.weald_reader, current
            deadline = monotonic() + timeout
            try:
                while not self.blocking_read(timeout):  # a heartbeat, or part of a message
                    timeout = deadline - monotonic()
                    if timeout <= 0.0:
                        raise TimeoutError("timed out")
            finally:
                self.weald_reader = outer
                if outer is None:
                    was_read, self._was_read = self._was_read, Event()
                    was_read.set()

        def wait(self, *args: Any, **kwargs: Any) -> Any:
            with _answered(self):
                return super().wait(*args, **kwargs)

        def heartbeat_tick(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().heartbeat_tick(*args, **kwargs)
            except BaseException:
                _break(self)
                raise

        def _write_frame(self, write: Callable[..., Any], transport: Any, *args: Any) -> Any:
            with self._writing:
                try:
                    if transport.sock is not None:
                        transport.sock.settimeout(ANSWER)
                    return write(*args)
                except BaseException:
                    _break(self)
                    raise

    Connection.Channel = _channel(connection_class.Channel)
    return Connection


class _answered:
    """If the `with` block waits for the broker for `ANSWER` seconds: shuts `connection` down, raises TimeoutError."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._timeout = Timeout(ANSWER, TimeoutError(f"the broker has not answered for {ANSWER:.0f} s"))

    def __enter__(self) -> None:
        self._timeout.start()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._timeout.close()
        if error is self._timeout.exception:
            _break(self._connection)


def _break(connection: Any) -> None:
    """Shut down the socket of py-amqp's connection, if there is one: all reading and writing on it fails."""
    sock = getattr(getattr(connection, "_transport", None), "sock", None)
    if sock is not None:
        try:
            _socket.socket.shutdown(sock, _socket.SHUT_RDWR)  # that of TLS's class would go on in plain text
        except OSError:
            pass


def leave_prefetching_to_the_loop(c: Any) -> None:
    """Have the loop of Celery's consumer `c` restore the prefetch count after a reconnect.

    Each acknowledgement restores some of it, which asks the broker.  Celery would do that in the greenlet that
    acknowledges, while the loop reads the connection.
    """
    name = "_restore_prefetch_count_after_connection_restart"
    restore = getattr(c, name, None)
    if restore is None:
        return

    def later(promise: Any, *args: Any) -> None:
        def now() -> None:
            if c.connection is not None and c.qos is not None:
                restore(promise, *args)

        if c.connection is None:  # tasks that end now count when the next connection begins
            count = min(c.initial_prefetch_count + c.prefetch_multiplier, c.max_prefetch_count)
            c.initial_prefetch_count = count
            c._maximum_prefetch_restored = count == c.max_prefetch_count
        else:
            c._pending_operations.append(now)  # the loop calls it

    setattr(c, name, later)
