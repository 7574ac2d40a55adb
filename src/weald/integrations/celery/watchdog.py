"""The watchdog: interrupts a task that computes and never waits.

Called by: pool.py.

While jobs run, a timer of the hub fires every `TICK` seconds, the beat, and a native thread checks it.  If the beat is
late, the thread simulates a signal, whose handler CPython calls between two bytecodes of the running greenlet.  The
handler finds out which job that is:
- past its soft limit, it raises SoftTimeLimitExceeded in the job;
- past its hard limit, it raises Ended, and again if the body catches it;
- otherwise the job waits for `PAUSE` seconds, so that broker heartbeats, remote control and other tasks go on; but only
  if it runs the task's own code, not if it is, say, inside kombu, in the middle of a frame.

C code that does not return runs no bytecode.  If it goes on after its hard limit, the log names it, and `stuck_timeout`
seconds later the process is replaced.  If it does not even release the GIL, faulthandler writes the traceback to
standard error and ends the process with status 1.
"""

import _thread
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from celery.utils.log import get_logger
from greenlet import getcurrent

from weald._base.originals import get_original
from weald._core import Timer, get_hub, helper_idle, monotonic, sleep
from weald.integrations.celery.job import SIGNAL, TIME_LIMIT, Ended, Job, current_job, is_body, job_of

__all__ = ["Watchdog"]

logger = get_logger("celery.pool")

TICK = 0.05
PAUSE = 0.01
SPARE = 2.0  # seconds past all other bounds until faulthandler ends a process whose GIL is not released
GRACE = 0.5  # seconds past its hard limit until the log names a job that is still in C code

# Packages in which a greenlet is not preempted: they share state between greenlets without locks.
_ATOMIC = frozenset(
    (
        "weald",
        "celery",
        "kombu",
        "amqp",
        "vine",
        "billiard",
        "redis",
        "threading",
        "importlib",
        "_frozen_importlib",
        "_frozen_importlib_external",
    )
)
# Modules that call the application's code: bodies, hooks, signal handlers.
_CALLERS = frozenset(("celery.app.trace", "celery.utils.dispatch.signal"))

_signal = get_original("signal", "signal")
_native_sleep = get_original("time", "sleep")
_native_frames = get_original("sys", "_current_frames")
_start_new_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")


class Watchdog:
    """Interrupts jobs that keep the hub from running.

    `running()` gives the jobs that run.  `on_beat(now)` is called in the hub with each beat, `on_stuck(job)` in the
    watchdog's thread when a job does not leave C code.  `preempt_after` and `stuck_timeout` are seconds.
    """

    def __init__(
        self,
        running: Callable[[], Collection[Job]],
        on_beat: Callable[[float], None],
        on_stuck: Callable[[Job], None],
        preempt_after: float | None,
        stuck_timeout: float,
    ) -> None:
        self._jobs = running
        self._on_beat, self._on_stuck = on_beat, on_stuck
        self.preempt_after = preempt_after
        self.stuck_timeout = stuck_timeout
        self.lag = 0.0  # how late the hub's last beat was, seconds
        self.worst_lag = 0.0
        self.preempted = 0
        self._beat = monotonic()
        self._handled = 0.0  # when the handler ran last
        self._active = False
        self._running = False
        self._idle = _allocate_lock()
        self._named: Job | None = None
        self._fault_at: float | None = None

    # ---------------------------------------------------------------- the hub's side

    def start(self) -> None:
        """Start the thread.  If the hub is not in the main thread, nothing can be interrupted, and the log says so."""
        if self._running:
            return
        if threading.main_thread().ident != get_hub().thread_ident:
            logger.warning("not in the main thread: tasks that compute cannot be interrupted")
            return
        _signal(SIGNAL, self._on_signal)
        self._running = True
        self._idle.acquire()
        _start_new_thread(self._watch, ())

    def stop(self) -> None:
        """End the thread."""
        if self._running:
            self._running = False
            self._wake()
        self._disarm()

    def job_starts(self, hard: float | None) -> None:
        """A job with a hard limit of `hard` seconds starts: beat from now on, as long as jobs run."""
        if not self._active:
            self._active = True
            self._beat = monotonic()
            self._timer = Timer(get_hub(), TICK, self._beats, ref=False)
            self._wake()
        if hard is not None:
            self._arm(monotonic() + hard + self.stuck_timeout + SPARE)

    def _wake(self) -> None:
        if self._idle.locked():
            self._idle.release()

    def _beats(self) -> None:
        now = monotonic()
        self.lag = max(now - self._beat - TICK, 0.0)
        self.worst_lag = max(self.worst_lag, self.lag)
        self._beat = now
        if self._jobs():
            self._timer = Timer(get_hub(), TICK, self._beats, ref=False)
        else:
            self._active = False
            self._disarm()
        self._on_beat(now)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Called between two bytecodes of the running greenlet."""
        now = self._handled = monotonic()
        job = current_job()
        if job is None or not job.may_be_struck(now) or job.steps is not None and getcurrent() is job:
            return
        if job.ended is None and job.overdue(now) >= 0.0:
            job.end(TIME_LIMIT)
        if job.ended is not None:
            again = job.puts_off()  # noqa: F841  its death, when this returns, calls this again a little later
            if again is None:
                raise Ended(job)
            return
        if job.soft is not None and now - job.began >= job.soft:
            error = job.soften()
            if error is not None:
                raise error
        if self.preempt_after is not None and now - self._beat >= self.preempt_after and _may_pause(frame):
            self.preempted += 1
            sleep(PAUSE)

    # ---------------------------------------------------------------- the thread's side

    def _watch(self) -> None:
        helper_idle(1)  # this thread wakes no greenlet, so it does not count as one that could end a deadlock
        try:
            while self._running:
                if not self._active:
                    self._idle.acquire()
                    continue
                _native_sleep(TICK)
                self._look(monotonic())
        finally:
            helper_idle(-1)

    def _look(self, now: float) -> None:
        late = now - self._beat
        if late >= (TICK * 2 if self.preempt_after is None else self.preempt_after):
            _thread.interrupt_main(SIGNAL)
        self._put_off(now)
        if late < GRACE or now - self._handled < GRACE:
            return
        # No bytecode for a while: C code.
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)  # ends system calls that can be ended
        frame = _native_frames().get(threading.main_thread().ident or 0)
        job = job_of(frame)
        if job is None or job.overdue(now) < GRACE:
            return
        if self._named is not job:
            self._named = job
            _start_new_thread(self._name, (job, "".join(traceback.format_stack(frame, 12))))
        if job.overdue(now) >= self.stuck_timeout:
            self._running = False
            self._on_stuck(job)

    def _name(self, job: Job, stack: str) -> None:
        # In a thread of its own: the stuck greenlet may hold a lock of logging.
        logger.critical(
            "%s[%s] is still in C code %.1f s after its hard limit (%ss); the process will be replaced in %.0f s:\n%s",
            job.task_name,
            job.task_id,
            job.overdue(monotonic()),
            job.hard,
            self.stuck_timeout,
            stack,
        )

    # ---------------------------------------------------------------- faulthandler, for C code that keeps the GIL

    def _arm(self, when: float) -> None:
        """Have faulthandler end the process at `when` (monotonic), unless `_put_off` gets the GIL before."""
        if self._running and (self._fault_at is None or when < self._fault_at):
            self._fault_at = when
            faulthandler.dump_traceback_later(max(when - monotonic(), 0.1), exit=True, file=_stderr())

    def _disarm(self) -> None:
        if self._fault_at is not None:
            self._fault_at = None
            faulthandler.cancel_dump_traceback_later()

    def _put_off(self, now: float) -> None:
        """Put faulthandler off: this thread has the GIL, so an overdue job is not for faulthandler to end."""
        if self._fault_at is not None and self._fault_at - now < SPARE / 2:
            self._disarm()
            overdue = max((job.overdue(now) for job in list(self._jobs())), default=float("-inf"))
            if overdue > float("-inf"):
                self._arm(now + max(self.stuck_timeout - overdue, 0.0) + SPARE)


def _stderr() -> Any:
    """Standard error that faulthandler can write to (Celery replaces sys.stderr by its log)."""
    return sys.__stderr__ if sys.__stderr__ is not None else os.open(os.devnull, os.O_WRONLY)


def _may_pause(frame: FrameType | None) -> bool:
    """Whether the task's own code runs, and none of `_ATOMIC` above it."""
    first = frame
    while frame is not None:
        if is_body(frame):
            return True
        name = frame.f_globals.get("__name__", "")
        if name in _CALLERS:
            return frame is not first
        if name.partition(".")[0] in _ATOMIC:
            return False
        frame = frame.f_back
    return False
