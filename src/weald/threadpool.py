"""Native threads for calls that would block the loop: ThreadPool, ThreadPoolExecutor, Proxy.

Called by: users, who make pools of their own; weald.fileobject and weald.os, which use `default()`;
weald.monkey, which looks for executors; weald.interpreters, weald.serve, weald.aio.

Invariants:
- Calls run in native threads (_base/workers.py), which reach greenlets by `Hub.run_callback_threadsafe` alone.
- A result is delivered by the hub of the caller's thread.  That hub counts the job as something that can wake a
  greenlet (`ref`), and frees the pool's slot.
- A fork's child begins with no workers and no jobs.
- A call does not begin if its caller has stopped waiting.

Long because pool, proxies and executor are one public module; their threads are in _base/workers.py.
"""

import concurrent.futures
import concurrent.futures.thread
import os
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from weald._base.config import config
from weald._base.forwarding import Forwarding
from weald._base.forwarding import behind as unproxied
from weald._base.names import more_names
from weald._base.originals import get_original
from weald._base.workers import Job, Workers, call_with_hooks
from weald._core import (
    AsyncResult,
    Condition,
    Event,
    Hub,
    Semaphore,
    begin_raw,
    get_hub,
    get_hub_if_exists,
)
from weald.exceptions import InvalidThreadUseError
from weald.pool import GroupMappingMixin

__all__ = ["Proxy", "ThreadPool", "ThreadPoolExecutor", "default", "unproxied"]

_T = TypeVar("_T")

_allocate_lock = get_original("_thread", "allocate_lock")


class _PoolJob(Job):
    """A call for a ThreadPool; runs in a copy of its caller's context."""

    __slots__ = ("_args", "_context", "_error", "_func", "_kwargs", "_lock", "_pool", "_report", "_result", "_value")

    def __init__(
        self, pool: "ThreadPool", func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], report: bool
    ) -> None:
        self._pool = pool
        self._func: Callable[..., Any] | None = func
        self._args, self._kwargs = args, kwargs
        self._report = report
        self._context: Context | None = copy_context()
        self._result: AsyncResult[Any] = AsyncResult()
        self._value: Any = None
        self._error: BaseException | None = None
        self._lock = _allocate_lock()  # the first to take it decides whether the job begins

    @property
    def result(self) -> AsyncResult[Any]:
        return self._result

    def get(self) -> Any:
        """Wait for the outcome and return or raise it.  If the caller leaves first, the call never begins."""
        try:
            return self._result.get()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Do not run the job, unless it has begun: its caller has stopped waiting."""
        if self._lock.acquire(False):
            self._func, self._args, self._kwargs, self._context = None, (), {}, None

    def run(self) -> None:
        if not self._lock.acquire(False):
            return
        assert self._context is not None
        try:
            self._value = self._context.run(call_with_hooks, self._func, self._args, self._kwargs)  # type: ignore[arg-type]
        except BaseException as error:
            self._error = error
        finally:
            self._context = None
            self._args, self._kwargs = (), {}

    def deliver(self) -> None:
        self._pool.hub.run_callback_threadsafe(self._deliver_in_hub)

    def _deliver_in_hub(self) -> None:
        error, self._error = self._error, None
        value, self._value = self._value, None
        func, self._func = self._func, None
        self._pool._job_delivered()
        if error is None:
            self._result.set(value)
        else:
            if self._report:
                self._pool.hub.handle_error((self._pool, func), type(error), error, error.__traceback__)
            self._result.set_exception(error, (type(error), error, error.__traceback__))


class ThreadPool(GroupMappingMixin):
    """At most `maxsize` native threads that run functions for the greenlets of one hub.

    For functions that block in a way that weald cannot replace: C libraries, regular files, heavy computing that
    releases the GIL.  `len` counts the jobs that have not ended.  A worker that had nothing to do for
    `idle_task_timeout` seconds ends (-1: never).  Exceptions of functions called by `apply` or `map` are raised there
    only; those of `spawn` are also passed to the hub's `handle_error`, as a greenlet's are.
    """

    def __init__(self, maxsize: int, hub: Hub | None = None, idle_task_timeout: float = -1) -> None:
        _check_maxsize(maxsize)
        self._hub: Hub | None = hub if hub is not None else get_hub()
        self._workers = Workers(maxsize, idle_task_timeout)
        self._reset()
        _pools.add(self)
        # The workers know only `_workers`, so a pool that is not used any more is freed, and they end.
        weakref.finalize(self, self._workers.stop_all).atexit = False

    def _reset(self) -> None:
        # One job more than threads may wait, so that a worker that has ended one finds the next.
        self._slots = Semaphore(self._workers.maxsize + 1)
        self._idle = Event()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} tasks={len(self)} size={self.size} maxsize={self.maxsize}>"

    def __len__(self) -> int:
        return self._workers.pending

    def __bool__(self) -> bool:
        return True

    @property
    def hub(self) -> Hub:
        """The hub whose greenlets use this pool."""
        if self._hub is None:  # after a fork
            self._hub = get_hub()
        return self._hub

    @property
    def maxsize(self) -> int:
        """The largest number of threads; may be set at any time, to 0 to suspend the pool."""
        return self._workers.maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        _check_maxsize(maxsize)
        more = maxsize - self._workers.maxsize
        self._workers.maxsize = maxsize
        self._workers.adjust()
        if more > 0:
            self._slots.release(more)
        else:
            self._slots.counter += more

    @property
    def size(self) -> int:
        """The number of threads, without those that end after their current job; may be set, up to `maxsize`."""
        return self._workers.size

    @size.setter
    def size(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"the size of a thread pool must not be negative: {size!r}")
        if size > self.maxsize:
            raise ValueError(f"the size of a thread pool must not exceed its maxsize: {size!r} > {self.maxsize!r}")
        self._workers.adjust(at_least=size)
        self._workers.stop(self._workers.size - size)

    def adjust(self) -> None:
        """Start the threads that the jobs at hand need."""
        self._workers.adjust()

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Run `func(*args, **kwargs)` in a worker, after waiting for a slot.  Returns an AsyncResult.

        Raises InvalidThreadUseError in a thread other than that of `hub`.
        """
        return self._spawn(func, args, kwargs, report=True).result

    def _spawn(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], report: bool) -> _PoolJob:
        hub = self.hub
        if get_hub_if_exists() is not hub:
            raise InvalidThreadUseError(
                f"{self!r} belongs to another thread; make a ThreadPool here, or use weald.threadpool.default()"
            )
        slots = self._slots
        slots.acquire()
        job = _PoolJob(self, func, args, kwargs, report)
        hub.ref()
        try:
            self._workers.submit_or_run(job)
        except BaseException:
            hub.unref()
            slots.release()
            raise
        return job

    def _job_delivered(self) -> None:
        self.hub.unref()
        self._slots.release()
        if not self._workers.pending:
            self._idle.set()

    def apply(self, func: Callable[..., Any], args: Any = None, kwds: Any = None) -> Any:
        """Run `func(*args, **kwds)` in a worker; returns its result or raises its exception.

        If the caller is killed, or a Timeout ends its waiting, before a worker has begun the call, it never begins.
        Called in another thread than that of `hub`, say by a job of this pool, it simply calls `func`.
        """
        if self._apply_immediately():
            return func(*(args or ()), **(kwds or {}))
        return self._spawn(func, tuple(args or ()), dict(kwds or {}), report=False).get()

    def map(self, func: Callable[[Any], Any], iterable: Any) -> list[Any]:
        """Return `[func(item) for item in iterable]`, called in workers.  Raises the first failed call's exception.

        As with `apply`, no call begins after the caller has left.
        """
        jobs: list[_PoolJob] = []
        try:
            for item in iterable:
                jobs.append(self._spawn(func, (item,), {}, report=False))
            return [job.get() for job in jobs]
        finally:
            for job in jobs:
                job.abandon()

    def join(self) -> None:
        """Wait until every job has ended."""
        while self._workers.pending:
            self._idle.clear()
            self._idle.wait()

    def kill(self) -> None:
        """Make every thread end after the jobs that are queued now.  Does not wait for that."""
        self.size = 0

    def _apply_immediately(self) -> bool:
        return get_hub_if_exists() is not self.hub

    def _spawn_would_block(self) -> bool:
        return True

    def _call_back(self, callback: Callable[[Any], object], result: Any) -> None:
        callback(result)


def _check_maxsize(maxsize: int) -> None:
    if not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an integer: {maxsize!r}")
    if maxsize < 0:
        raise ValueError(f"maxsize must not be negative: {maxsize!r}")


def default() -> ThreadPool:
    """The pool of this thread's hub, made at the first call with `config.threadpool_size` threads (10)."""
    hub = get_hub()
    pool: ThreadPool | None = hub.threadpool
    if pool is None:
        make = config.threadpool
        made = make(config.threadpool_size, hub, config.threadpool_idle_task_timeout)
        if hub.threadpool is None:  # else a signal's handler has made one meanwhile
            hub.threadpool = made
        pool = hub.threadpool
    return pool


class _Settings:
    """The settings that a Proxy shares with the proxies of the objects that its own object returns."""

    def __init__(
        self,
        autowrap: tuple[type, ...],
        autowrap_names: frozenset[str],
        pool: ThreadPool | None,
        at_once: frozenset[str],
    ) -> None:
        self.autowrap, self.autowrap_names, self.pool, self.at_once = autowrap, autowrap_names, pool, at_once

    def for_results(self, target: object) -> "_Settings":
        """The settings for results of `target`: a copy for a module or a class, whose results are independent."""
        if isinstance(target, ModuleType | type):
            return _Settings(self.autowrap, self.autowrap_names, self.pool, self.at_once)
        return self


# Calls that go on although their callers were killed or timed out, by the settings that their objects share.
_abandoned: "weakref.WeakKeyDictionary[_Settings, set[AsyncResult[Any]]]" = weakref.WeakKeyDictionary()


class Proxy(Forwarding):
    """A stand-in for `obj`, whose calls run in native threads while the calling greenlet waits.

    For objects of C libraries that wait by themselves, a database's connection say, and would stall every
    greenlet.  `Proxy(sqlite3.connect(path, check_same_thread=False), autowrap=[sqlite3.Cursor])` is a connection
    whose queries, and those of its cursors, let others run.

    `autowrap` lists types, `autowrap_names` names of methods and attributes: objects of these types, and results of
    these names, are wrapped in a Proxy, too.  Attributes that are data are read in place, those that run code
    (properties) in a thread.  Classes are returned as they are, so that `except module.Error` works.
    `isinstance(proxy, type(obj))` holds; for C functions that need the object itself, use `unproxied(proxy)`.

    The threads are those of `pool`, by default of the calling hub's `default()` pool.  An object that may only be
    used in one thread needs a `ThreadPool(1)`, in which it has to be made as well: `pool.apply(make)`.  A thread
    without a hub, or another than that of `pool`, simply makes the call itself, and so does a job of the pool.

    As with threads, nothing keeps two greenlets from making calls at the same time.  If a caller is killed or
    times out, its call goes on if it has begun.  Later calls of the object, and of objects that it has returned,
    wait until that call has ended, so none meets a half-finished one.  Methods named in `at_once` do not wait and are
    called in place: they are meant to end other calls.
    """

    __slots__ = ("_weald_settings",)
    _weald_settings: _Settings

    def __init__(
        self,
        obj: Any,
        autowrap: Iterable[type] = (),
        autowrap_names: Iterable[str] = (),
        pool: ThreadPool | None = None,
        at_once: Iterable[str] = ("cancel", "interrupt"),
    ) -> None:
        self._weald_set(obj, _Settings(tuple(autowrap), frozenset(autowrap_names), pool, frozenset(at_once)))

    def _weald_set(self, obj: Any, settings: _Settings) -> None:
        object.__setattr__(self, "_weald_object", unproxied(obj))
        object.__setattr__(self, "_weald_settings", settings)

    def _weald_derive(self, target: Any) -> "Proxy":
        made = Proxy.__new__(Proxy)
        made._weald_set(target, self._weald_settings.for_results(self._weald_object))
        return made

    def _weald_wrap(self, name: str, value: Any) -> Any:
        settings = self._weald_settings
        if isinstance(value, settings.autowrap) or (name in settings.autowrap_names and not isinstance(value, Proxy)):
            return self._weald_derive(value)
        return value

    def _weald_run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        settings = self._weald_settings
        hub = get_hub_if_exists()
        if hub is None or name in settings.at_once:
            return function(*args, **kwargs)
        pool = settings.pool if settings.pool is not None else default()
        if pool._apply_immediately():
            return function(*args, **kwargs)
        while unended := _abandoned.get(settings):
            result = next(iter(unended))
            result.wait()
            unended.discard(result)
        job = pool._spawn(function, args, kwargs, report=False)
        try:
            return job.get()
        except BaseException:
            if not job.result.ready():
                _abandon(settings, job.result)
            raise


def _abandon(settings: _Settings, result: AsyncResult[Any]) -> None:
    """Let later calls through proxies with these `settings` wait for `result`, whose caller has left."""
    unended = _abandoned.setdefault(settings, set())
    unended.add(result)
    result.rawlink(unended.discard)


class _Future(concurrent.futures.Future[_T]):
    """A future that greenlets and threads can wait for, also with `weald.wait`."""

    def __init__(self) -> None:
        super().__init__()
        # Those of `threading` would block the loop in an unpatched program.
        self._condition = Condition()  # type: ignore[assignment]
        self._waiters = _Waiters()
        self._links: Event | None = None
        self._hub: Any = None  # callbacks run in this hub's thread; None: in the thread that ends the future

    def _invoke_callbacks(self) -> None:
        """Call the done callbacks: in a greenlet of the submitter's hub, where they may spawn and wait."""
        hub = self._hub
        if hub is None or hub is get_hub_if_exists() or hub.loop.destroyed:
            super()._invoke_callbacks()  # type: ignore[misc]
        else:
            hub.run_callback_threadsafe(begin_raw, _Future._call_back, self)

    def _call_back(self) -> None:
        super()._invoke_callbacks()  # type: ignore[misc]

    def rawlink(self, callback: Callable[["_Future[_T]"], object]) -> None:
        """Call `callback(self)` in this thread's hub once the future is done."""
        if self._links is None:
            self._links = Event()
            self.add_done_callback(lambda future: future._links.set())  # type: ignore[attr-defined]
        self._links.rawlink(_Link(self, callback))

    def unlink(self, callback: Callable[["_Future[_T]"], object]) -> None:
        """Take back one `rawlink(callback)`; unknown ones are ignored."""
        if self._links is not None:
            self._links.unlink(_Link(self, callback))

    def ready(self) -> bool:
        return self.done()

    def successful(self) -> bool:
        """True if it is done and has a result."""
        return self.done() and not self.cancelled() and self.exception() is None


class _Waiters(list[Any]):
    """The list of waiters of a future, which `concurrent.futures.wait` and `as_completed` append to."""

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, Event):
            waiter.event = Event()  # not in use yet: the futures are locked while it is made
        super().append(waiter)


class _Link:
    """Calls `callback(future)`; equal to every other link that does."""

    __slots__ = ("_callback", "_future")

    def __init__(self, future: _Future[Any], callback: Callable[[_Future[Any]], object]) -> None:
        self._future, self._callback = future, callback

    def __call__(self, event: object) -> None:
        self._callback(self._future)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Link) and other._callback == self._callback

    def __hash__(self) -> int:
        return hash(self._callback)


class _ExecutorJob(Job):
    """A call for a ThreadPoolExecutor; runs in a copy of its caller's context."""

    __slots__ = ("_args", "_context", "_func", "_hub", "_kwargs", "future")

    def __init__(
        self, future: _Future[Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future = future
        self._func, self._args, self._kwargs = func, args, kwargs
        self._context = copy_context()
        self._hub = future._hub = get_hub()
        self._hub.ref()

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            value = self._context.run(call_with_hooks, self._func, self._args, self._kwargs)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)

    def deliver(self) -> None:
        self._hub.unref()

    def fail(self, error: BaseException) -> None:
        """End a job that no worker will run."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
        self.deliver()

    def cancel(self) -> None:
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
        self.deliver()


class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """concurrent.futures.ThreadPoolExecutor on native threads, patched or not, for greenlets to wait on.

    Its futures work with `concurrent.futures.wait` and `as_completed` and with `weald.wait`.  Unlike the
    standard library's, its threads do not keep the interpreter from exiting.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(max_workers, thread_name_prefix, initializer, initargs)
        initialize = None if initializer is None else _Initializer(self, initializer, initargs)
        self._workers = Workers(self._max_workers, initializer=initialize, name=self._thread_name_prefix)
        self._lock = _allocate_lock()
        self._error: str | None = None
        _pools.add(self)
        weakref.finalize(self, self._workers.stop_all).atexit = False

    def _reset(self) -> None:
        self._lock = _allocate_lock()

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[_T]:
        """Run `fn(*args, **kwargs)` in a worker; never blocks."""
        with self._lock:
            if self._error is not None:
                raise concurrent.futures.thread.BrokenThreadPool(self._error)
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: _Future[_T] = _Future()
            job = _ExecutorJob(future, fn, args, kwargs)
            try:
                self._workers.submit(job)
            except BaseException:
                job.deliver()
                raise
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs; with `wait`, return when the accepted ones have ended."""
        with self._lock:
            self._shutdown = True
            queued = self._workers.take_queued() if cancel_futures else []
            self._workers.stop_all()
        for job in queued:
            job.cancel()  # type: ignore[attr-defined]
        if wait:
            hub = get_hub()
            hub.ref()
            try:
                self._workers.all_ended.wait()
            finally:
                hub.unref()

    kill = shutdown

    def _break(self, message: str) -> None:
        """Fail all jobs, waiting and later ones, because a worker's initializer has failed."""
        with self._lock:
            self._error = message
            queued = self._workers.take_queued()
        for job in queued:
            job.fail(concurrent.futures.thread.BrokenThreadPool(message))  # type: ignore[attr-defined]


class _Initializer:
    """Prepares a worker of an executor; does not keep the executor alive."""

    def __init__(
        self, executor: ThreadPoolExecutor, initializer: Callable[..., object], initargs: tuple[Any, ...]
    ) -> None:
        self._executor = weakref.ref(executor)
        self._initializer, self._initargs = initializer, initargs

    def __call__(self) -> bool:
        try:
            self._initializer(*self._initargs)
        except BaseException:
            concurrent.futures._base.LOGGER.critical("Exception in initializer:", exc_info=True)
            executor = self._executor()
            if executor is not None:
                executor._break("a worker's initializer failed; its traceback was logged")
            return False
        return True


_pools: "weakref.WeakSet[ThreadPool | ThreadPoolExecutor]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    _abandoned.clear()
    for pool in list(_pools):
        pool._workers.reset()
        if isinstance(pool, ThreadPool):
            pool._hub = None
        pool._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
