"""The worker's result backend: which tasks share one, how results are stored and awaited, what an outage does.

Called by: pool.py, alias_pool.py.

Celery makes a backend per thread; with greenlets that is one per task, and a connection for each result.  Where it is
safe (`SHARED`) all tasks share one backend instead, with few connections to Redis, and results share round trips.

Invariants:
- Nothing is raised in a job while its outcome is being stored (`job.recording`).
- While the store is unreachable, storing an outcome is tried again, as long as the worker runs.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from celery.backends.asynchronous import greenletDrainer, register_drainer
from celery.exceptions import Reject
from celery.utils.log import get_logger
from celery.utils.time import get_exponential_backoff_interval
from celery.worker import state
from kombu.utils.imports import symbol_by_name

from weald._core import Event, Greenlet, RLock, monotonic, sleep, spawn
from weald.integrations.celery.batches import batch_results
from weald.integrations.celery.job import acknowledges_late, recording

__all__ = ["arrange_backend"]

logger = get_logger("celery.pool")

# Backends that greenlets may share.  Of others Celery makes one per greenlet.
SHARED = (
    "celery.backends.redis:RedisBackend",
    "celery.backends.database:DatabaseBackend",
    "celery.backends.filesystem:FilesystemBackend",
)
# Methods of a backend that record an outcome, and those that are tried again.
RECORDING = (
    "mark_as_started", "mark_as_done", "mark_as_failure", "mark_as_retry", "mark_as_revoked", "process_cleanup",
)
PERSISTENT = ("store_result", "on_chord_part_return")

FEWEST = 2  # connections to Redis: one awaits results, one stores and reads them
WAIT = 60.0  # seconds until a greenlet that waits for a connection to Redis fails
STOPPING = 20.0  # seconds that a worker which was told to stop goes on trying to store an outcome


@register_drainer("weald")
class _Drainer(greenletDrainer):
    """One greenlet reads results for all greenlets that wait for some."""

    def spawn(self, func: Any) -> Greenlet:
        greenlet = spawn(func)
        sleep(0)
        return greenlet

    def _event(self) -> Event:
        return Event()

    def _create_drain_complete_event(self) -> None:
        self._drain_complete_event = Event()  # Celery 5.5 calls this; later releases call `_event`

    def _send_drain_complete_event(self) -> None:
        event, self._drain_complete_event = self._drain_complete_event, Event()
        event.set()


def arrange_backend(app: Any, connections: int | None) -> None:
    """Have each backend that `app` makes store outcomes again and again until it succeeds.

    Backends in `SHARED` are shared by all tasks; one to Redis has at most `connections` connections.  If `connections`
    is None, Celery alone decides what is shared.
    """
    make = app._get_backend
    away = _Outage()

    def get_backend() -> Any:
        backend = make()
        if connections is not None:
            if app.conf.get("result_backend_thread_safe") is not True:
                backend.thread_safe = _may_be_shared(backend)
            _bound_redis(backend, connections, away)
        for name in PERSISTENT:
            setattr(backend, name, _persistent(backend, getattr(backend, name), away))
        for name in RECORDING:
            setattr(backend, name, _recording(getattr(backend, name)))
        return backend

    app._get_backend = get_backend
    app._backend_cache = None
    vars(app._local).pop("backend", None)


def _may_be_shared(backend: Any) -> bool:
    for name in SHARED:
        try:
            if isinstance(backend, symbol_by_name(name)):
                return True
        except ImportError:
            pass
    return False


def _bound_redis(backend: Any, connections: int, away: "_Outage") -> None:
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return
    if not isinstance(backend, RedisBackend) or type(backend)._get_pool is not RedisBackend._get_pool:
        return
    limit = backend.max_connections or connections
    if limit < FEWEST:
        logger.warning("results need %d connections to Redis, not %d: one of them awaits results", FEWEST, limit)
        limit = FEWEST
    backend.connparams["max_connections"] = limit
    backend._ConnectionPool = partial(backend.redis.BlockingConnectionPool, timeout=WAIT)
    vars(backend).pop("client", None)
    batch_results(backend)
    _subscribe_in_turn(backend.result_consumer)

    def on_connection_error(max_retries: int, error: Exception, intervals: Any, retries: int) -> float:
        away.begins(error)
        return float(next(intervals))

    backend.on_connection_error = on_connection_error  # Celery's logs a line for each task and try


def _subscribe_in_turn(consumer: Any) -> None:
    """Let one greenlet at a time use the subscriptions of `consumer`, as Celery 5.7 does by itself.

    redis-py's PubSub takes a connection for its first command.  Greenlets that call it before then take one
    each, which no one gives back, and so all of the few that there are.
    """
    if hasattr(consumer, "_pubsub_lock"):
        return
    lock = RLock()

    def in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return function(*args, **kwargs)

        return call

    for name in ("consume_from", "cancel_for", "_reconnect_pubsub"):
        setattr(consumer, name, in_turn(getattr(consumer, name)))


# -------------------------------------------------------------------- recording an outcome


class _Outage:
    """Logs once that the store is unreachable, and once that it answers again."""

    def __init__(self) -> None:
        self.lasts = False
        self._given_up_at: float | None = None  # monotonic

    def begins(self, error: BaseException) -> None:
        if not self.lasts:
            self.lasts = True
            logger.error("the result store is away, results are stored when it is back: %r", error)

    def is_given_up(self) -> bool:
        """Whether the worker is stopping and has tried for `STOPPING` seconds."""
        if state.should_terminate is not None:
            return True
        if state.should_stop is None:
            return False
        if self._given_up_at is None:
            self._given_up_at = monotonic() + STOPPING
        return monotonic() > self._given_up_at

    def ends(self) -> None:
        if self.lasts:
            self.lasts = False
            logger.warning("the result store is back")


def _recording(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def record(*args: Any, **kwargs: Any) -> Any:
        with recording():
            return function(*args, **kwargs)

    return record


def _persistent(backend: Any, function: Callable[..., Any], away: _Outage) -> Callable[..., Any]:
    """`function`, tried again while the store is unreachable, with the delays of Celery's settings."""
    conf = backend.app.conf
    first, longest = (conf[f"result_backend_{name}_sleep_between_retries_ms"] for name in ("base", "max"))

    @wraps(function)
    def persist(*args: Any, **kwargs: Any) -> Any:
        tries = 0
        with recording():
            while True:
                try:
                    value = function(*args, **kwargs)
                except Exception as error:
                    if not backend.exception_safe_to_retry(error):
                        raise
                    away.begins(error)
                    if away.is_given_up():
                        if acknowledges_late():
                            raise Reject(error, requeue=True) from error  # another worker runs the task
                        raise
                else:
                    away.ends()
                    return value
                tries = min(tries + 1, 30)
                sleep(get_exponential_backoff_interval(first, tries, longest, True) / 1000)

    return persist
