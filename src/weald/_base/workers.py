"""Native threads that take jobs from one queue.

Called by: weald.threadpool, whose pools and executors run their calls on them; weald.thread and weald.threading, whose
threads are native there; weald.resolver.thread and weald.resolver._lookups; weald._base.children (`hear_no_signals`).

Invariants:
- The threads are native even when `threading` is patched, and share nothing with greenlets but their queue and what
  `Job.deliver` does with the outcome.
- They never keep the interpreter from exiting; a fork's child begins with none, and with no jobs.
- Greenlets that a job has started in its thread's hub go on after the job: while the thread waits for the next job,
  which it then does in its hub, and after it has left the pool.  New jobs go to other threads first meanwhile.
"""

import _queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from weald._base.originals import get_original
from weald._core import Event, Hub, Timeout, drop_mains_timeouts, get_hub_with_rest, helper_idle, report

__all__ = [
    "Job",
    "Workers",
    "call_with_hooks",
    "finish_rest",
    "hear_no_signals",
    "is_worker",
]

_T = TypeVar("_T")

_start_new_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")
_get_ident = get_original("_thread", "get_ident")

_idents: set[int] = set()  # of the threads here

# What a thread's own faults, and not other processes, cause.  `faulthandler` must hear of it.
_FAULTS = {getattr(signal, name) for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")}


class Job:
    """A worker's task: `run` calls the function in the worker, `deliver` hands the outcome to the caller."""

    __slots__ = ()

    def run(self) -> None:
        """Call the function, in a worker; raises nothing."""
        raise NotImplementedError

    def deliver(self) -> None:
        """Hand the outcome to the waiting caller; called in the worker's thread."""
        raise NotImplementedError


class Workers:
    """At most `maxsize` native threads, started when there are more jobs than threads.

    `pending` counts jobs that have not ended, `threads` those that live, `stopping` how many of them
    will find a stop mark (None) in the queue, `_lingering` are the hubs in which threads wait for a job, because
    an earlier job has left greenlets there.  `_lock` guards them all.  With a `name` the threads are called NAME_0,
    NAME_1 and so on in `threading`; without, Dummy-N.
    """

    def __init__(
        self,
        maxsize: int,
        idle_timeout: float = -1,
        initializer: Callable[[], bool] | None = None,
        name: str | None = None,
    ) -> None:
        self.maxsize = maxsize
        self._idle_timeout = idle_timeout if idle_timeout >= 0 else None
        self._initializer = initializer
        self._name = name
        self._named = 0
        self.reset()

    def reset(self) -> None:
        """Forget all threads and jobs, as a fork's child must."""
        self._lock = _allocate_lock()
        self._queue: _queue.SimpleQueue[Job | None] = _queue.SimpleQueue()
        self.pending = 0
        self.threads = 0
        self.stopping = 0
        self._lingering: set[Hub] = set()
        self.all_ended = Event()
        self.all_ended.set()

    @property
    def size(self) -> int:
        """The number of threads, without those that have been told to end."""
        return self.threads - self.stopping

    def submit(self, job: Job) -> None:
        """Have a worker run `job`.  Raises RuntimeError, and does not keep the job, if no thread can be started."""
        with self._lock:
            self.pending += 1
            self._put(job)
        try:
            self.adjust()
        except BaseException:
            queued = self.take_queued()
            with self._lock:
                for other in queued:
                    if other is not job:
                        self.pending += 1
                        self._put(other)
            if job in queued:
                raise

    def submit_or_run(self, job: Job) -> None:
        """As `submit`.  At the interpreter's end, when Python 3.12 starts no thread, run `job` in the calling thread.

        The standard library's blocking calls still work then.
        """
        try:
            self.submit(job)
        except RuntimeError as error:
            if "interpreter shutdown" not in str(error):
                raise
            _run_here(job)

    def _put(self, job: Job | None) -> None:
        self._queue.put(job)
        for hub in self._lingering:
            hub.rouse()

    def adjust(self, at_least: int = 0) -> None:
        """Start the threads that are missing for the jobs at hand, stop those above `maxsize`."""
        with self._lock:
            wanted = min(max(self.pending + len(self._lingering), at_least), self.maxsize)
            missing = wanted - self.size
            surplus = self.size - self.maxsize
            self.threads += max(missing, 0)
            if missing > 0:
                self.all_ended.clear()
        for started in range(missing):
            try:
                _start_new_thread(_work, (self,))
            except RuntimeError:
                with self._lock:
                    self.threads -= missing - started
                    if not self.threads:
                        self.all_ended.set()
                        raise  # no thread would ever run the job
                break
        self.stop(surplus)

    def stop(self, count: int) -> None:
        """Have `count` threads end after the jobs that are queued now."""
        with self._lock:
            for _ in range(min(count, self.size)):
                self.stopping += 1
                self._put(None)

    def stop_all(self) -> None:
        """Have all threads end after the jobs that are queued now."""
        self.stop(self.size)

    def take_queued(self) -> list[Job]:
        """Take the jobs that no worker has begun."""
        jobs = []
        with self._lock:
            marks = 0
            while True:
                try:
                    job = self._queue.get_nowait()
                except _queue.Empty:
                    break
                if job is None:
                    marks += 1
                else:
                    jobs.append(job)
            for _ in range(marks):
                self._put(None)
            self.pending -= len(jobs)
        return jobs

    def next_job(self) -> Job | None:
        """In a worker: return the next job; None if the thread must end, which is then no longer counted."""
        while True:
            if (hub := get_hub_with_rest()) is not None:
                try:
                    job = self._linger_for_job(hub)
                except _queue.Empty:
                    continue
            else:
                helper_idle(1)
                try:
                    job = self._queue.get(True, self._idle_timeout)
                except _queue.Empty:
                    with self._lock:
                        if self._queue.empty():
                            self._thread_ends()
                            return None
                    continue
                finally:
                    helper_idle(-1)
            if job is None:
                with self._lock:
                    self.stopping -= 1
                    self._thread_ends()
            return job

    def _linger_for_job(self, hub: Hub) -> Job | None:
        """Run the greenlets that earlier jobs have left in `hub` until there is a job.  Empty: try again."""
        drop_mains_timeouts(hub)
        hub.prepare_linger()
        with self._lock:
            self._lingering.add(hub)
        try:
            try:
                return self._queue.get_nowait()
            except _queue.Empty:
                _linger(hub)
            return self._queue.get_nowait()
        finally:
            with self._lock:
                self._lingering.discard(hub)

    def _thread_ends(self) -> None:
        if self._name is not None:
            active = threading._active  # type: ignore[attr-defined]
            if isinstance(active.get(_get_ident()), threading._DummyThread):
                del active[_get_ident()]  # `threading` itself would keep it
        self.threads -= 1
        if not self.threads:
            self.all_ended.set()

    def job_ended(self) -> None:
        """In a worker: count its job as ended."""
        with self._lock:
            self.pending -= 1

    def worker_failed(self) -> None:
        """Account for a thread that ends by itself.  If there are jobs, others take its place."""
        with self._lock:
            self._thread_ends()
        if self.pending:
            self.adjust()

    def initialize(self) -> bool:
        """Name a new thread and run the initializer in it.  False if that failed and the thread must end."""
        if self._name is not None:
            with self._lock:
                number = self._named
                self._named += 1
            threading.current_thread().name = f"{self._name}_{number}"
        return self._initializer is None or self._initializer()


def _work(workers: Workers) -> None:
    """The function of a worker thread."""
    ident = _get_ident()
    _idents.add(ident)
    try:
        if workers.initialize():
            while (job := workers.next_job()) is not None:
                job.run()
                workers.job_ended()
                job.deliver()
                del job
        else:
            workers.worker_failed()
        del workers
        finish_rest()
    finally:
        _idents.discard(ident)


def is_worker() -> bool:
    """Whether this is a native thread that takes jobs."""
    return _get_ident() in _idents


def finish_rest() -> None:
    """At the end of a native thread: return when everything that was started in its hub has ended."""
    while (hub := get_hub_with_rest()) is not None:
        drop_mains_timeouts(hub)
        hub.prepare_linger()
        _linger(hub)


def _linger(hub: Hub) -> None:
    try:
        hub.linger()
    except (Timeout, SystemExit):
        pass  # a Timeout that expired as its job ended; SystemExit, which ends a thread quietly
    except BaseException:
        report(f"{traceback.format_exc()}raised in a thread whose job had ended\n\n")


def hear_no_signals() -> bool:
    """An initializer for threads that only call functions of weald's own.

    A signal sent to the process goes to any thread that does not block it.  A program that blocks one in all threads it
    knows of, to take it by `sigwait`, would be ended by it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    return True


def _run_here(job: Job) -> None:
    """Run `job` in the calling thread, whose profile and trace functions stay."""
    profile, trace = sys.getprofile(), sys.gettrace()
    try:
        job.run()
    finally:
        sys.setprofile(profile)
        sys.settrace(trace)
    job.deliver()


def call_with_hooks(function: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
    """Call `function` under the profile and trace functions that `threading` now has for new threads."""
    profile = getattr(threading, "_profile_hook", None)
    trace = getattr(threading, "_trace_hook", None)
    if profile is not None:
        sys.setprofile(profile)
    if trace is not None:
        sys.settrace(trace)
    try:
        return function(*args, **kwargs)
    finally:
        if sys.gettrace() is not None:
            sys.settrace(None)
        if sys.getprofile() is not None:
            sys.setprofile(None)
