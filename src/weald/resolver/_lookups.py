"""Look-ups under way in native threads: equal ones share a job; and how many look-ups begin at a time.

Called by: thread.py; _queries.py (`Pace`).

Invariants:
- A job that has not begun when its last caller leaves never begins, and nobody joins it any more.
- Each caller gets its own copy of the exception, and of a result that callers may change.
- The dict of jobs, and how many callers each has, change in the hub's thread only.
"""

from collections.abc import Callable, Hashable
from socket import AddressFamily, SocketKind
from typing import Any

from weald._base.workers import Job, Workers
from weald._core import AsyncResult, Hub, Semaphore, get_hub, get_hub_if_exists, getcurrent

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
    """The jobs under way, by their functions and arguments, for the greenlets of one hub."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._jobs: dict[Hashable, _Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def ask(self, hub: Hub, workers: Workers, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return a copy of what `function(*args)` returns in one of `workers`, or raise a copy of its exception.

        If an equal call is under way, wait for that one instead.  Raises RuntimeError if no thread can be started.
        """
        key = _key(function.__name__, args)
        job = self._jobs.get(key)
        fresh = job is None
        if job is None:
            job = self._jobs[key] = _Job(self, hub, key, function, args)
        job.waiting += 1
        try:
            if fresh:
                job.submit(workers)
            error, result = job.result.get()
        finally:
            job.waiting -= 1
            if not job.waiting:
                self.end(job)
        if error is not None:
            raise type(error)(*error.args)
        return _copy(result)

    def end(self, job: "_Job") -> None:
        """Nobody joins `job` any more."""
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]


class _Job(Job):
    """A call under way, and how many callers wait for it."""

    __slots__ = ("_args", "_function", "_hub", "_lookups", "_outcome", "key", "result", "waiting")

    def __init__(
        self, lookups: Lookups, hub: Hub, key: Hashable, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._lookups, self._hub = lookups, hub
        self._function, self._args = function, args
        self._outcome: tuple[BaseException | None, Any] = None, None
        self.key = key
        self.result: AsyncResult[tuple[BaseException | None, Any]] = AsyncResult()
        self.waiting = 0

    def submit(self, workers: Workers) -> None:
        """Have it run by one of `workers`; the hub counts it as something that can wake a greenlet."""
        self._hub.ref()
        try:
            workers.submit_or_run(self)
        except BaseException:
            self._hub.unref()
            raise

    def run(self) -> None:
        if self.waiting:
            try:
                self._outcome = None, self._function(*self._args)
            except BaseException as error:
                self._outcome = error, None

    def deliver(self) -> None:
        self._hub.run_callback_threadsafe(self._deliver_in_hub)

    def _deliver_in_hub(self) -> None:
        self._hub.unref()
        self._lookups.end(self)
        self.result.set(self._outcome)


# Arguments of these types mean the same to C if, and only if, they are equal.
_PLAIN = frozenset({str, bytes, int, AddressFamily, SocketKind, type(None)})


def _key(name: str, args: tuple[Any, ...]) -> Hashable:
    """A key that is equal for arguments that mean the same to C.  Arguments of unusual types equal nothing else."""
    if _PLAIN.issuperset(map(type, args)):
        return name, *args
    return name, *map(_part, args)


def _part(argument: Any) -> Hashable:
    if isinstance(argument, tuple):
        return tuple(map(_part, argument))
    if type(argument) in _PLAIN:
        return argument  # type: ignore[no-any-return]
    if isinstance(argument, int):
        return int.__index__(argument)  # of another enumeration, say
    return bytes(argument) if type(argument) is bytearray else object()


def _copy(value: Any) -> Any:
    """A copy of a look-up's result, whose lists callers may change; all that lies in a list is immutable."""
    if isinstance(value, list):
        return value.copy()
    return tuple(map(_copy, value)) if isinstance(value, tuple) else value
