"""Look-ups under way in native threads: equal ones share a job; and how many look-ups begin at a time.

Called by: thread.py; _queries.py (`Pace`).

Invariants: a job ends when it is done or when its last caller has left.  Each caller gets its own copy of the
exception, and of a result that callers may change.
"""

from collections.abc import Callable, Hashable
from typing import Any

from greenlet import greenlet

from weald._core import AsyncResult, Semaphore, get_hub, get_hub_if_exists, getcurrent, killall, spawn_raw

__all__ = ["Lookups", "Pace"]

_AT_ONCE = 20  # look-ups that begin before other greenlets run


class Pace:
    """Lets other greenlets run before further look-ups begin, if many have begun.

    A program may look up thousands of names at once.  Otherwise all greenlets would stand still until every query is
    sent, and the replies would lie unread.
    """

    def __init__(self) -> None:
        self._places = Semaphore(_AT_ONCE)
        self._renewing = False

    def wait(self) -> None:
        """Wait for this look-up's turn, if many have begun.  In the hub, which must not wait, it has its turn."""
        if self._places.counter > 0:
            self._places.counter -= 1
            return
        if getcurrent() is get_hub_if_exists():
            return
        if not self._renewing:
            self._renewing = True
            get_hub().run_callback_threadsafe(self._renew)
        self._places.acquire()

    def _renew(self) -> None:
        """Called when all that was ready has run: let the next ones begin."""
        self._places.release(_AT_ONCE - self._places.counter)
        self._renewing = self._places.counter < _AT_ONCE  # if not, nobody waits
        if self._renewing:
            get_hub().run_callback_threadsafe(self._renew)


class Lookups:
    """The jobs under way, by their arguments."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._jobs: dict[Hashable, _Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return a copy of what `function(*args)` returns, or raise a copy of its exception.

        If an equal call is under way, wait for that one instead.  A call that no caller waits for any more is killed.
        """
        job = self._join(function, args)
        try:
            error, result = job.result.get()
        finally:
            self._leave(job)
        if error is not None:
            raise type(error)(*error.args)
        return _copy(result)

    def _join(self, function: Callable[..., Any], args: tuple[Any, ...]) -> "_Job":
        key = _key((function.__name__, *args))
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(key)
            # In a greenlet of its own, since the caller may be killed while others wait for the same answer.
            job.greenlet = spawn_raw(self._run, job, function, args)
        job.waiting += 1
        return job

    def _leave(self, job: "_Job") -> None:
        job.waiting -= 1
        if not job.waiting and not job.result.ready():
            self._end(job)
            killall([job.greenlet], block=False)

    def _run(self, job: "_Job", function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            job.result.set((None, function(*args)))
        except BaseException as error:
            job.result.set((error, None))
        finally:
            self._end(job)

    def _end(self, job: "_Job") -> None:
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]


class _Job:
    """A call under way, and how many callers wait for it."""

    __slots__ = ("greenlet", "key", "result", "waiting")  # thousands may be under way: the collector sees each dict
    greenlet: greenlet

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.result: AsyncResult[tuple[Any, Any]] = AsyncResult()
        self.waiting = 0


def _key(arguments: tuple[Any, ...]) -> Hashable:
    """A key that is equal for arguments that mean the same to C.  Arguments of unusual types equal nothing else."""
    return tuple(_part(argument) for argument in arguments)


def _part(argument: Any) -> Hashable:
    if isinstance(argument, tuple):
        return _key(argument)
    if isinstance(argument, int):
        return int.__index__(argument)  # of an enumeration, say
    if argument is None or type(argument) in (str, bytes):
        return type(argument), argument
    return bytes(argument) if type(argument) is bytearray else object()


def _copy(value: Any) -> Any:
    """A deep copy of a look-up's result: text and numbers in tuples and lists.  Much faster than copy.deepcopy."""
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, tuple):
        copies = map(_copy, value)
        return type(value)._make(copies) if hasattr(value, "_make") else tuple(copies)
    return value
