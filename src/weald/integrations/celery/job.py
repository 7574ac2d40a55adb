"""A job: the greenlet that runs one task for the pool and applies its limits.

Called by: pool.py, which makes jobs; results.py; watchdog.py; Celery, which calls the wrapped body of a task
(`wrap_body`).

Invariants:
- A job is `open` while Celery's tracing runs, from the first signal handler to the last hook.  A limit, a revoke and a
  cold stop raise exceptions there, but not while the job is `busy`: an acknowledgement or the storing of a result is
  completed first.
- `ended` is set once.  Whatever the task returns or raises after that is dropped, so the outcome is recorded once: as
  TimeLimitExceeded, or, for a revoked or cancelled task, by the caller that revoked or cancelled it.
- One of Celery's callbacks is called per job; none if the task was revoked or cancelled, or has expired.
"""

import _thread
import asyncio
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from types import CoroutineType, FrameType
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import signals
from celery.exceptions import Reject, SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from greenlet import GreenletExit, getcurrent

from weald._core import Greenlet, Timer, get_hub, monotonic, spawn_raw
from weald.integrations.celery import coroutines, forks

__all__ = ["Ended", "Job", "JobPid", "acknowledges_late", "current_job", "recording", "wrap_body", "wrap_inner"]

logger = get_logger("celery.pool")

TIME_LIMIT = "time limit"
KILLED = "killed"
SIGNAL: Any = signal.SIGRTMIN + 5  # simulated; see watchdog.py
RETRY_INTERVAL = 0.05  # seconds until a limit that passed while the job was busy is tried again
CLEANUP = 1.0  # seconds that `finally` clauses get after `Ended`, until it is raised again
PUT_OFF = 4  # the n-th Ended is raised n % PUT_OFF bytecodes later; see Job.puts_off
POSTRUN = 2.0  # seconds that handlers of `task_postrun` get after `Ended`
HOOKS = 5.0  # seconds that the hooks get which Celery calls for a task that has hit its hard limit


class Ended(BaseException):
    """Raised in a task to end it.  If code catches it, it is raised again after the `except` clause."""

    def __init__(self, job: "Job") -> None:
        super().__init__()
        job.rearm = _Rearm(self, _thread.interrupt_main)  # type: ignore[arg-type]
        job.put_off = job.raised % PUT_OFF
        job.raised += 1


class _Rearm(weakref.ref[Any]):
    """Calls interrupt_main(SIGNAL) when its object (an Ended) dies, so that the watchdog's handler raises the next one.

    No Python code may run between that call and the body's next bytecode, or the handler would be called there.  So
    interrupt_main itself is the weak reference's callback, and the reference, its argument, converts to the number.
    """

    def __index__(self) -> int:
        return int(SIGNAL)


class JobPid(int):
    """The process id, which Celery gets as the process of a job; it also says which job that is.

    It does not have the job itself.  Celery keeps it in the request, which the job has.  Before Python 3.14 the garbage
    collector would not find that cycle: it takes no notice of a dict whose values were all greenlets that ran.
    """

    number: int
    task_id: str

    def __new__(cls, job: "Job") -> "JobPid":
        self = super().__new__(cls, os.getpid())
        self.number, self.task_id = job.number, job.task_id
        return self


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
        self.open = False  # whether Celery's tracing runs
        self.busy = 0  # how many nested calls store something
        self.inside = False  # whether the task's body runs
        self.spared = 0.0  # monotonic: nothing is raised in the job before
        self.ended: str | None = None  # why: TIME_LIMIT or KILLED
        self.softened = False  # whether the soft limit was raised
        self._timers: dict[Callable[[], None], Timer] = {}  # by what they call
        self.raised = 0  # how often Ended was raised
        self.put_off = 0
        self.rearm: _Rearm | None = None
        self.steps: coroutines.Steps | None = None  # of its coroutine, which it waits for

    @property
    def task_name(self) -> str:
        """The task's name, for logs."""
        return str(self.target_args[0]) if self.target_args else repr(self.target)

    @property
    def task_id(self) -> str:
        """The task's id, for logs; "?" if the call has none."""
        return str(self.target_args[1]) if len(self.target_args) > 1 else "?"

    @property
    def request(self) -> Any:
        """Celery's request, whose methods the callbacks are; None if they are other functions."""
        return getattr(self.callbacks.get("accept_callback"), "__self__", None)

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
            for timer in self._timers.values():
                timer.cancel()
            self._timers = {}
            self._on_end(self)

    def _work(self) -> None:
        accept = self.callbacks.get("accept_callback")
        if _called_off(self.request):
            return
        if accept is not None:
            accept(JobPid(self), self.began)
        failure: Any = None
        result: Any = None
        self.open = True
        if self.soft is not None or self.hard is not None:
            self._start_timers()
        try:
            try:
                result = self.target(*self.target_args, **self.target_kwargs)
            finally:
                self.open = False  # no call comes between the end of `target` and this, so nothing is raised there
        except Ended:
            pass
        except (WorkerShutdown, WorkerTerminate):
            raise
        except Reject:
            failure = ExceptionInfo()
        except BaseException as error:
            failure = _lost(error)
        if self.ended is KILLED:
            return
        if self.ended is TIME_LIMIT:
            self._report_hard_limit()
        elif failure is not None:
            self.call("error_callback", failure)
        else:
            self.call("callback", result)

    def _report_hard_limit(self) -> None:
        """Celery records the limit, then calls hooks of the task, which get `HOOKS` seconds."""
        self.spared = monotonic() + HOOKS
        self.open = True
        self._strike()
        try:
            try:
                self.call("timeout_callback", False, self.hard)
            finally:
                self.open = False
        except Reject as error:
            self.request.reject(requeue=error.requeue)
        except Ended:
            logger.error("hooks of %s[%s] are cut short: its hard limit (%ss) was %s s ago",
                         self.task_name, self.task_id, self.hard, HOOKS)
            _settle(self.request)

    def call(self, name: str, *args: Any) -> None:
        """Call one of Celery's callbacks, if it was given."""
        callback = self.callbacks.get(name)
        if callback is not None:
            callback(*args)

    # ---------------------------------------------------------------- limits

    def _start_timers(self) -> None:
        if self.soft is not None:
            self._later(self._soft_limit, self.soft)
        if self.hard is not None:
            self._later(self._hard_limit, self.hard)

    def _later(self, function: Callable[[], None], seconds: float = RETRY_INTERVAL) -> None:
        """Call `function` in the hub after `seconds`, if the job still runs then."""
        hub = get_hub()
        self._timers[function] = Timer(hub, seconds, hub.run_callback, function)

    def _soft_limit(self) -> None:
        if self.busy:
            self._later(self._soft_limit)
            return
        error = self.soften()
        if error is None:
            return
        if self.steps is not None:
            self.steps.interrupt(lambda: error, for_good=False)
        else:
            self.throw(error)

    def _hard_limit(self) -> None:
        if self.busy:
            self._later(self._hard_limit)
        elif self.end(TIME_LIMIT):
            self._strike()

    def soften(self) -> BaseException | None:
        """The exception to raise now that its soft limit has passed; None if it is too late for that."""
        if self.softened or self.ended is not None or not self.may_be_struck(0.0):
            return None
        self.softened = True
        self._on_limit("soft")
        spawn_raw(self.call, "timeout_callback", True, self.soft)
        error: BaseException = SoftTimeLimitExceeded(self.soft)
        return error

    def end(self, why: str) -> bool:
        """Mark the job as ended; whether an exception has to be raised in it for that."""
        if self.ended is None:
            if why is TIME_LIMIT:
                if not self.open or self.busy:
                    return False  # not begun, or its outcome is being recorded
                self._on_limit("hard")
            self.ended = why
        return self.open and getcurrent() is not self

    def may_be_struck(self, now: float) -> bool:
        """Whether an exception may be raised in the job at the time `now` (monotonic)."""
        return self.open and not self.busy and not now < self.spared

    def call_off(self) -> None:
        """End the job as revoked or cancelled: nothing is recorded."""
        if self.end(KILLED):
            get_hub().run_callback(self._strike)

    def kill(self, exception: Any = GreenletExit, block: bool = True, timeout: float | None = None) -> None:
        """For the program, which may find the greenlet of a task: raise `exception` there, and the task fails with it.

        Waits for its end, up to `timeout` seconds (None: for ever), if `block`.
        """
        raised = exception[1] or exception[0] if isinstance(exception, tuple) else exception
        if current_job() is self and block:
            raise raised
        get_hub().run_callback(self._raise, raised)
        if block:
            self.join(timeout)

    def _raise(self, exception: Any) -> None:
        """In the hub: raise `exception` in the task's body."""
        if self.busy:
            self._later(partial(self._raise, exception))
        elif not self.open:
            return  # not begun, or its outcome is known
        elif self.steps is not None:
            self.steps.interrupt(lambda: exception() if isinstance(exception, type) else exception, for_good=False)
        else:
            self.throw(exception)

    def terminate(self, signum: Any = None) -> None:
        """Does nothing: Celery calls it after `TaskPool.terminate_job`, which has ended the job."""

    def _strike(self) -> None:
        """In the hub: raise Ended in the task, again and again until it has ended."""
        if not self.open or self.dead:
            return
        self._later(self._strike, CLEANUP if self.may_be_struck(monotonic()) else RETRY_INTERVAL)
        if getcurrent() is not self and self.may_be_struck(monotonic()):
            if self.steps is not None:
                self.steps.interrupt(partial(Ended, self), for_good=True)
            else:
                self.throw(Ended, self)  # made in the task, so that no reference here keeps it alive

    def puts_off(self) -> object:
        """If the next Ended has to be raised a bytecode later: an object whose death triggers that; else None.

        An Ended may be raised at the jump back to a loop's head, which CPython counts to the instruction before the
        head.  If that is the last instruction of a `try` block, the block's `except` would catch each Ended.
        """
        if not self.put_off:
            return None
        self.put_off -= 1
        token: set[Any] = set()
        self.rearm = _Rearm(token, _thread.interrupt_main)  # type: ignore[arg-type]
        return token

    def overdue(self, now: float) -> float:
        """Seconds since the job's hard limit passed; negative before, minus infinity without a limit."""
        return now - self.began - self.hard if self.hard is not None and self.began else float("-inf")

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.task_name}[{self.task_id}]>"


def current_job() -> Job | None:
    """The job whose greenlet, or a step of whose coroutine, runs."""
    current = getcurrent()
    return current if isinstance(current, Job) else coroutines.owner_of(current)


def _called_off(request: Any) -> bool:
    """Whether the task has expired or been revoked while it waited for a slot; Celery's request records that, too.

    Celery itself checks only when it hands the task to the pool.
    """
    revoked = getattr(request, "revoked", None)
    return callable(revoked) and bool(revoked())


def _settle(request: Any) -> None:
    """Acknowledge or give back the message of a task that has hit its hard limit, as Celery's request would have."""
    task = getattr(request, "task", None)
    if not getattr(task, "acks_late", False):
        return
    if getattr(task, "acks_on_timeout", getattr(task, "acks_on_failure_or_timeout", True)):
        request.acknowledge()
    else:
        request.reject(requeue=True)


def acknowledges_late() -> bool:
    """Whether the current job's message is acknowledged when the task ends (`acks_late`)."""
    job = current_job()
    return job is not None and bool(getattr(getattr(job.request, "task", None), "acks_late", False))


@contextmanager
def recording() -> Iterator[None]:
    """Within the `with` block nothing is raised in the current job, if there is one."""
    job = current_job()
    if job is None:
        yield
        return
    job.busy += 1
    try:
        yield
    finally:
        job.busy -= 1


@signals.task_postrun.connect(weak=False)
def _postrun_begins(**kwargs: Any) -> None:
    """Give the app's handlers of `task_postrun` their time.  This one runs first: Celery imports pools before apps."""
    job = getcurrent()
    if isinstance(job, Job) and job.ended is not None:
        job.spared = monotonic() + POSTRUN


def _lost(error: BaseException) -> Any:
    """The WorkerLostError that Celery records for an exception that its tracing lets pass, such as SystemExit."""
    try:
        raise WorkerLostError(repr(error)) from error
    except WorkerLostError:
        return ExceptionInfo()


# -------------------------------------------------------------------- the body


def wrap_body(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the body of a task (`Task.run`) for jobs: it sets `Job.inside`, runs coroutines, and converts a
    BaseException, which Celery's tracing would not record, into an Exception of the same name.
    """

    @wraps(run)
    def body(*args: Any, **kwargs: Any) -> Any:
        job = getcurrent()
        if not isinstance(job, Job) or job.inside:
            # Called directly, or by another task's body.
            value = run(*args, **kwargs)
            if type(value) is not CoroutineType or asyncio._get_running_loop() is not None:
                return value  # a coroutine that calls it can await it
            return coroutines.run(value, None)
        if job.ended is not None:
            raise Ended(job)
        job.inside = True
        try:
            value = run(*args, **kwargs)
            if type(value) is CoroutineType:
                value = coroutines.run(value, job)
        except Ended:
            raise
        except BaseException as error:
            if forks.in_child():
                forks.leave(error)
            if job.ended is not None:
                raise Ended(job) from None
            if isinstance(error, (Exception, SystemExit, KeyboardInterrupt, MemoryError)):
                raise
            raise _as_exception(error).with_traceback(error.__traceback__) from None
        finally:
            job.inside = False
        if forks.in_child():
            forks.leave(None)
        if job.ended is not None:
            raise Ended(job)
        return value

    body.weald_body = True  # type: ignore[attr-defined]
    return body


def wrap_inner(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wrap the function that Celery's own wrapper of task `name` calls in a `try` (`autoretry_for`): a coroutine runs
    inside that, so that what it raises is caught there.
    """

    @wraps(run)
    def inner(*args: Any, **kwargs: Any) -> Any:
        value = run(*args, **kwargs)
        job = getcurrent()
        own = isinstance(job, Job) and job.inside and job.steps is None and job.task_name == name
        return coroutines.run(value, job) if own and type(value) is CoroutineType else value

    return inner


_disguises: dict[type[BaseException], type[Exception]] = {}


def _as_exception(error: BaseException) -> Exception:
    """An Exception that is stored, shown and pickled like `error`, a BaseException (weald.Timeout, say)."""
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


def is_body(frame: FrameType) -> bool:
    """Whether it is the frame of a wrapped body, or of a step of its coroutine."""
    return frame.f_code is _BODY_CODE or frame.f_code is coroutines.STEP_CODE


_BODY_CODE = wrap_body(lambda: None).__code__
_WORK_CODE = Job._run.__code__


def job_of(frame: Any) -> Job | None:
    """The job whose greenlet `frame` belongs to."""
    while frame is not None:
        if frame.f_code is _WORK_CODE:
            job = frame.f_locals.get("self")
            return job if isinstance(job, Job) else None
        if frame.f_code is coroutines.STEP_CODE:
            return getattr(frame.f_locals.get("self"), "owner", None)
        frame = frame.f_back
    return None
