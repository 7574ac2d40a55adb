"""A job: the greenlet that runs one task for the pool, and ends it when its time is over.

Called by: pool.py, which makes jobs; watchdog.py; Celery, which calls the wrapped body of a task (`wrap_body`).

Invariants:
- Exceptions are raised only in the task's own body (`inside`), never in Celery's bookkeeping around it: an
  acknowledgement or a result under way is not torn apart.
- `ended` is set once.  From then on whatever the body returns or raises is dropped, so the outcome is recorded
  once: as time limit exceeded, or, for a revoked or cancelled task, by whoever asked for it.
- One of Celery's callbacks is called per job, none for one that was revoked or cancelled, or has expired.
"""

import _thread
import signal
import weakref
from collections.abc import Callable
from functools import wraps
from types import CoroutineType
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from greenlet import getcurrent

from weald._core import Greenlet, Timer, get_hub, monotonic, spawn_raw
from weald.integrations.celery import coroutines

__all__ = ["Ended", "Job", "wrap_body"]

logger = get_logger("celery.pool")

TIME_LIMIT = "time limit"
KILLED = "killed"
SIGNAL: Any = signal.SIGRTMIN + 5  # simulated; see watchdog.py
AGAIN = 0.05  # seconds until a body that went on after `Ended` is struck again


class Ended(BaseException):
    """Raised in a task's body to end it.  Not to be caught; a body that does is struck again."""


class _Rearm(weakref.ref[Ended]):
    """Calls interrupt_main(SIGNAL) when its Ended is dropped, so that the watchdog's handler raises the next one.

    No Python code may run between that call and the body's next bytecode, or the handler would be called there:
    so the callback is interrupt_main itself, and the reference that it is called with is the number it wants.
    """

    def __index__(self) -> int:
        return int(SIGNAL)


class Job(Greenlet):
    """Runs `target` (Celery's tracing of one task); limits are in seconds or None.

    `on_limit` is called with "soft" or "hard" when a limit is applied, `on_end` with the job when it has ended.
    """

    def __init__(
        self,
        number: int,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        soft: float | None,
        hard: float | None,
        callbacks: dict[str, Callable[..., Any]],
        on_limit: Callable[[str], None],
        on_end: Callable[["Job"], None],
    ) -> None:
        super().__init__()
        self.number = number
        self.target, self.target_args, self.target_kwargs = target, args, kwargs
        self.soft, self.hard = soft, hard
        self.callbacks = callbacks
        self._on_limit, self._on_end = on_limit, on_end
        self.began = 0.0  # monotonic
        self.inside = False  # in the task's body?
        self.ended: str | None = None  # why: TIME_LIMIT or KILLED
        self.softened = False  # has the soft limit been raised?
        self.strikes = 0
        self._timers: list[Timer] = []
        self._rearm: _Rearm | None = None

    @property
    def task_name(self) -> str:
        return str(self.target_args[0]) if self.target_args else repr(self.target)

    @property
    def task_id(self) -> str:
        return str(self.target_args[1]) if len(self.target_args) > 1 else "?"

    # ---------------------------------------------------------------- running

    def _run(self) -> None:
        self.began = monotonic()
        try:
            self._work()
        except (SystemExit, KeyboardInterrupt):
            raise  # Celery's WorkerShutdown and WorkerTerminate: the hub hands them to the main greenlet
        except BaseException as error:
            logger.critical("the pool failed on task %s[%s]: %r", self.task_name, self.task_id, error, exc_info=True)
        finally:
            for timer in self._timers:
                timer.cancel()
            self._timers = []
            self._on_end(self)

    def _work(self) -> None:
        accept = self.callbacks.get("accept_callback")
        if _called_off(accept):
            return
        if accept is not None:
            accept(self.number, self.began)
        if self.soft is not None or self.hard is not None:
            self._start_timers()
        failure: Any = None
        result: Any = None
        try:
            result = self.target(*self.target_args, **self.target_kwargs)
        except Ended:
            pass
        except (WorkerShutdown, WorkerTerminate):
            raise
        except BaseException as error:
            failure = _lost(error)
        if self.ended is KILLED:
            return
        if self.ended is TIME_LIMIT:
            self.call("timeout_callback", False, self.hard)
        elif failure is not None:
            self.call("error_callback", failure)
        else:
            self.call("callback", result)

    def call(self, name: str, *args: Any) -> None:
        """Call one of Celery's callbacks, if it was given."""
        callback = self.callbacks.get(name)
        if callback is not None:
            callback(*args)

    # ---------------------------------------------------------------- limits

    def _start_timers(self) -> None:
        hub = get_hub()
        run = hub.run_callback
        if self.soft is not None:
            self._timers.append(Timer(hub, self.soft, run, self._soft_limit))
        if self.hard is not None:
            self._timers.append(Timer(hub, self.hard, run, self._hard_limit))

    def _soft_limit(self) -> None:
        error = self.soften()
        if error is not None:
            self.throw(error)

    def _hard_limit(self) -> None:
        if self.end(TIME_LIMIT):
            self._strike()

    def soften(self) -> BaseException | None:
        """The exception to raise in the body now that its soft limit has passed; None if it is too late for that."""
        if self.softened or self.ended is not None or not self.inside:
            return None
        self.softened = True
        self._on_limit("soft")
        spawn_raw(self.call, "timeout_callback", True, self.soft)
        error: BaseException = SoftTimeLimitExceeded(self.soft)
        return error

    def end(self, why: str) -> bool:
        """Mark it as ended; whether its body has to be struck for that."""
        if self.ended is None:
            if why is TIME_LIMIT:
                if not self.inside:
                    return False  # not begun, or done: the outcome is on its way
                self._on_limit("hard")
            self.ended = why
        return self.inside and getcurrent() is not self

    def kill(self, exception: Any = None, block: bool = False, timeout: float | None = None) -> None:
        """End it as revoked or cancelled: nothing is recorded."""
        if self.end(KILLED):
            get_hub().run_callback(self._strike)

    def terminate(self, signum: Any = None) -> None:
        """Celery calls this after `TaskPool.terminate_job`, which has done it."""

    def _strike(self) -> None:
        """In the hub: raise Ended in the body, and again as long as it goes on."""
        if not self.inside or self.dead:
            return
        self.strikes += 1
        self._timers.append(Timer(get_hub(), AGAIN, get_hub().run_callback, self._strike))
        del self._timers[:-3]
        self.throw(self.make_ended())

    def make_ended(self) -> Ended:
        """An Ended that, should the body catch it, is raised again at the next bytecode after the `except`."""
        error = Ended()
        self._rearm = _Rearm(error, _thread.interrupt_main)  # type: ignore[arg-type]
        return error

    def overdue(self, now: float) -> float:
        """Seconds since its hard limit, negative before; minus infinity without one."""
        return now - self.began - self.hard if self.hard is not None and self.began else float("-inf")

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.task_name}[{self.task_id}]>"


def _called_off(accept: Any) -> bool:
    """Has the task expired or been revoked while it waited for a slot?  Celery's request, which records that, knows.

    Celery itself looks only when it hands the task to the pool.
    """
    revoked = getattr(getattr(accept, "__self__", None), "revoked", None)
    return callable(revoked) and bool(revoked())


def _lost(error: BaseException) -> Any:
    """What Celery is told of an exception that its tracing does not record, such as SystemExit."""
    try:
        raise WorkerLostError(repr(error)) from error
    except WorkerLostError:
        return ExceptionInfo()


# -------------------------------------------------------------------- the body


def wrap_body(run: Callable[..., Any]) -> Callable[..., Any]:
    """The body of a task (`Task.run`), for jobs: marks when they are inside, runs coroutines, and turns exceptions
    that are not an Exception, which Celery's tracing would not record, into one of the same name.
    """

    @wraps(run)
    def body(*args: Any, **kwargs: Any) -> Any:
        job = getcurrent()
        if not isinstance(job, Job) or job.inside:
            # Called directly, or by another task's body.
            value = run(*args, **kwargs)
            return coroutines.run(value) if type(value) is CoroutineType else value
        if job.ended is not None:
            raise job.make_ended()
        job.inside = True
        try:
            value = run(*args, **kwargs)
            if type(value) is CoroutineType:
                value = coroutines.run(value)
            job.inside = False  # no call between this and the return of `run`: nothing can be raised there
        except Exception:
            job.inside = False
            if job.ended is not None:
                raise job.make_ended() from None
            raise
        except BaseException as error:
            job.inside = False
            if job.ended is not None:
                raise job.make_ended() from None
            if isinstance(error, (SystemExit, KeyboardInterrupt, MemoryError)):
                raise
            raise _as_exception(error).with_traceback(error.__traceback__) from None
        if job.ended is not None:
            raise job.make_ended()
        return value

    body.weald_body = True  # type: ignore[attr-defined]
    return body


_disguises: dict[type[BaseException], type[Exception]] = {}


def _as_exception(error: BaseException) -> Exception:
    """An Exception that is stored, shown and pickled as `error`, which is not one (weald.Timeout, say)."""
    cls = type(error)
    disguise = _disguises.get(cls)
    if disguise is None:
        disguise = _disguises[cls] = type(
            cls.__name__,
            (Exception,),
            {
                "__module__": cls.__module__,
                "__qualname__": cls.__qualname__,
                "__reduce__": lambda self: (cls, self.args),
                "__str__": lambda self: str(self.original),
            },
        )
    made = disguise(*error.args)
    made.original = error  # type: ignore[attr-defined]
    return made


def body_frame(frame: Any) -> Any:
    """The frame of the body that `frame` was called from, or None."""
    while frame is not None and frame.f_code is not _BODY_CODE:
        frame = frame.f_back
    return frame


_BODY_CODE = wrap_body(lambda: None).__code__
_WORK_CODE = Job._run.__code__


def job_of(frame: Any) -> Job | None:
    """The job whose greenlet `frame` belongs to."""
    while frame is not None:
        if frame.f_code is _WORK_CODE:
            job = frame.f_locals.get("self")
            return job if isinstance(job, Job) else None
        frame = frame.f_back
    return None
