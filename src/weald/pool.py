"""Group and Pool: track running greenlets, and limit how many there are.

Called by: users, server.py, threadpool.py, weald.compat.

A greenlet leaves its group through a link when it ends.  `threadpool` shares the mapping methods.

Invariants:
- `Group.greenlets` holds exactly the greenlets added and neither ended nor discarded.
- A Pool's `_semaphore` holds `size` minus the number of its greenlets, plus the permits that other code adds: Celery's
  autoscaler and gunicorn release it and change its counter to grow and shrink the pool.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from weald._base.names import more_names
from weald._core import DummySemaphore, Event, Greenlet, Semaphore, SimpleQueue, Timeout, joinall, killall, sleep
from weald.queue import Full

__all__ = ["Group", "Pool", "PoolFull"]

_Exception = type[BaseException] | BaseException


class PoolFull(Full):
    """The pool had no room in the time allowed."""


class GroupMappingMixin:
    """map, imap, apply and their variants, for any class with a `spawn`.

    `spawn(function, *args, **kwargs)` returns something with `get`, `rawlink`, `successful` and `value`;
    it blocks while there is no room.
    """

    def spawn(self, *args: Any, **kwargs: Any) -> Any:
        """Start a call; see the class."""
        raise NotImplementedError

    def _apply_immediately(self) -> bool:
        """Whether `apply` must call the function itself, because waiting for a slot could deadlock."""
        raise NotImplementedError

    def _spawn_would_block(self) -> bool:
        raise NotImplementedError

    def apply(self, func: Callable[..., Any], args: Any = None, kwds: Any = None) -> Any:
        """Run `func(*args, **kwds)` in this pool and wait for it; returns its result or raises its exception.

        Called from a member of this pool it runs in the caller: waiting for a free slot could last for ever.
        """
        if self._apply_immediately():
            return func(*(args or ()), **(kwds or {}))
        return self.spawn(func, *(args or ()), **(kwds or {})).get()

    def apply_cb(self, func: Callable[..., Any], args: Any = None, kwds: Any = None, callback: Any = None) -> Any:
        """As `apply`; if `func` succeeds, `callback(result)` is called, too."""
        result = self.apply(func, args, kwds)
        if callback is not None:
            self._call_back(callback, result)
        return result

    def _call_back(self, callback: Callable[[Any], object], result: Any) -> None:
        Greenlet.spawn(callback, result)

    def apply_async(self, func: Callable[..., Any], args: Any = None, kwds: Any = None, callback: Any = None) -> Any:
        """Start `func(*args, **kwds)` and return a greenlet whose `get` gives the result; never blocks.

        While there is no room, the greenlet returned is not a member yet: join it, not the pool.
        """
        if self._spawn_would_block():
            return Greenlet.spawn(self.apply_cb, func, args, kwds, callback)
        task = self.spawn(func, *(args or ()), **(kwds or {}))
        if callback is not None:
            task.link_value(lambda source: callback(source.value))
        return task

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any]) -> list[Any]:
        """`[func(item) for item in iterable]`, all calls at once as far as there is room.

        Raises the exception of the first item, in their order, that failed.
        """
        return [task.get() for task in [self.spawn(func, item) for item in iterable]]

    def map_cb(self, func: Callable[[Any], Any], iterable: Iterable[Any], callback: Any = None) -> list[Any]:
        """As `map`, then `callback(results)`."""
        results = self.map(func, iterable)
        if callback is not None:
            callback(results)
        return results

    def map_async(self, func: Callable[[Any], Any], iterable: Iterable[Any], callback: Any = None) -> Greenlet:
        """A greenlet that runs `map_cb`."""
        return Greenlet.spawn(self.map_cb, func, iterable, callback)

    def imap(self, func: Callable[..., Any], *iterables: Iterable[Any], maxsize: int | None = None) -> "IMap":
        """An iterator over `func(*items)`, in order, computed ahead as far as there is room.

        At most `maxsize` results wait for the reader (None: any number).  An item that failed raises its
        exception in the reader, who may go on with the next.
        """
        return IMap.spawn(func, zip(*iterables, strict=False), self.spawn, maxsize)  # type: ignore[return-value]

    def imap_unordered(
        self, func: Callable[..., Any], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> "IMapUnordered":
        """As `imap`, with results in the order in which they become ready."""
        return IMapUnordered.spawn(func, zip(*iterables, strict=False), self.spawn, maxsize)  # type: ignore[return-value]


class IMapUnordered(Greenlet):
    """The greenlet that feeds the tasks of an imap, and the iterator over their results."""

    def __init__(
        self,
        func: Callable[..., Any],
        items: Iterable[tuple[Any, ...]],
        spawn: Callable[..., Any],
        maxsize: int | None = None,
    ) -> None:
        super().__init__()
        self.queue: SimpleQueue[tuple[int, Any]] = SimpleQueue()  # (index, ended task); None as task ends it
        self._func: Callable[..., Any] | None = func
        self._items: Iterable[tuple[Any, ...]] = items
        self._spawn_task: Callable[..., Any] | None = spawn
        self._slots = Semaphore(maxsize) if maxsize else None
        self._fed = 0  # tasks started
        self._running = 0
        self._error: BaseException | None = None  # raised in the reader after the last result
        self._ended = False
        self.rawlink(self._feeding_ended)

    def _run(self) -> None:
        func, spawn = self._func, self._spawn_task
        assert func is not None and spawn is not None
        try:
            for item in self._items:
                if self._slots is not None:
                    self._slots.acquire()
                task = spawn(func, *item)
                self._running += 1
                index, self._fed = self._fed, self._fed + 1
                task.rawlink(partial(self._task_ended, index))
        except Exception as error:
            self._error = error
        finally:
            self._func = self._spawn_task = None
            self._items = ()

    def _task_ended(self, index: int, task: Any) -> None:
        self._running -= 1
        self.queue.put((index, task))
        if self._running == 0 and self.ready():
            self.queue.put((self._fed, None))

    def _feeding_ended(self, feeder: Greenlet) -> None:
        # A link, not the end of _run: a feeder killed before it began must not leave the reader waiting.
        if self._error is None and isinstance(self.value, GreenletExit):
            self._error = self.value
        if self._running == 0:
            self.queue.put((self._fed, None))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        if self._slots is not None:
            self._slots.release()
        task = self._next_task()
        if task is not None:
            return task.get()
        self._ended = True
        if self._error is not None:
            raise self._error
        raise StopIteration

    next = __next__

    def _next_task(self) -> Any:
        return self.queue.get()[1]


class IMap(IMapUnordered):
    """As IMapUnordered, in the order of the items."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._early: dict[int, Any] = {}  # tasks that ended before their turn
        self._next_index = 0
        super().__init__(*args, **kwargs)

    def _next_task(self) -> Any:
        while self._next_index not in self._early:
            index, task = self.queue.get()
            self._early[index] = task
        self._next_index += 1
        return self._early.pop(self._next_index - 1)


class Group(GroupMappingMixin):
    """A set of greenlets, without a limit on their number.

    Iterating gives the greenlets, `len` counts them, so an empty group is false.
    """

    greenlet_class: Callable[..., Greenlet] = Greenlet

    def __init__(self, *args: Iterable[Any]) -> None:
        if len(args) > 1:
            raise TypeError(f"Group takes at most one iterable of greenlets, got {len(args)} arguments")
        self.greenlets: set[Any] = set()
        self.dying: set[Any] = set()
        self._empty_event = Event()
        self._empty_event.set()
        for member in args[0] if args else ():
            Group.add(self, member)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self.greenlets}>"

    def __len__(self) -> int:
        return len(self.greenlets)

    def __contains__(self, item: object) -> bool:
        return item in self.greenlets

    def __iter__(self) -> Iterator[Any]:
        return iter(self.greenlets)

    def add(self, greenlet: Any) -> None:
        """Track `greenlet` until it ends.  A plain greenlet has no links: `discard` it yourself."""
        if greenlet in self.greenlets:
            return
        link = getattr(greenlet, "rawlink", None)
        if link is not None:
            link(self._discard)
        self.greenlets.add(greenlet)
        self._empty_event.clear()

    def _discard(self, greenlet: Any) -> None:
        self.greenlets.discard(greenlet)
        self.dying.discard(greenlet)
        if not self.greenlets:
            self._empty_event.set()

    def discard(self, greenlet: Any) -> None:
        """Stop tracking `greenlet`, which may go on running; unknown ones are ignored."""
        if greenlet not in self.greenlets:
            return
        unlink = getattr(greenlet, "unlink", None)
        if unlink is not None:
            unlink(self._discard)
        self._discard(greenlet)

    def start(self, greenlet: Greenlet) -> None:
        """Add a greenlet that has not been started, and start it."""
        self.add(greenlet)
        greenlet.start()

    def spawn(self, *args: Any, **kwargs: Any) -> Greenlet:
        """Start `greenlet_class(*args, **kwargs)` in this group and return it; blocks while there is no room."""
        greenlet = self.greenlet_class(*args, **kwargs)
        self.start(greenlet)
        return greenlet

    def join(self, timeout: float | None = None, raise_error: bool = False) -> bool:
        """Wait up to `timeout` seconds until the group was empty once; True if it was.

        With `raise_error`, raises the exception of a greenlet that was a member at the call and failed.
        """
        members = list(self.greenlets) if raise_error else []
        empty = self._empty_event.wait(timeout)
        for member in members:
            if member.exception is not None:
                raise member.exception
        return empty

    def kill(self, exception: _Exception = GreenletExit, block: bool = True, timeout: float | None = None) -> None:
        """Raise `exception` in every member, also in those that join while this waits.

        With `block`, wait up to `timeout` seconds until the group is empty.
        """
        with Timeout(timeout, False):
            while self.greenlets:
                for member in list(self.greenlets):
                    if member not in self.dying:
                        self._kill(member, exception)
                if not block:
                    return
                awaited = self._awaited()
                joinall(self.greenlets)
                if self.greenlets:
                    sleep(0)  # links of those that had ended before, which take them out of the group, come next
                if awaited:
                    sleep(0)  # the greenlets that have waited for room spawn next

    def _kill(self, member: Any, exception: _Exception) -> None:
        self.dying.add(member)
        if hasattr(member, "rawlink"):
            member.kill(exception, block=False)
        else:
            killall([member], exception, block=False)
            self._discard(member)

    def killone(
        self,
        greenlet: greenlet,
        exception: _Exception = GreenletExit,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Raise `exception` in `greenlet` if it is a member, and wait for it up to `timeout` seconds."""
        if greenlet in self.greenlets and greenlet not in self.dying:
            self._kill(greenlet, exception)
            if block:
                joinall([greenlet], timeout)

    def full(self) -> bool:
        """Whether `spawn` would block."""
        return False

    def wait_available(self, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds for room; returns how many greenlets could be spawned at once."""
        return 1

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any]) -> list[Any]:
        """See GroupMappingMixin.map; the greenlets are no longer members when it returns."""
        tasks = [self.spawn(func, item) for item in iterable]
        results = [task.get() for task in tasks]
        for task in self.greenlets.intersection(tasks):
            self.discard(task)  # ended: their own links come later
        return results

    def _apply_immediately(self) -> bool:
        return getcurrent() in self.greenlets

    def _spawn_would_block(self) -> bool:
        return self.full()

    def _awaited(self) -> bool:
        """Whether a greenlet waits for room."""
        return False


class Pool(Group):
    """A group of at most `size` greenlets: `spawn` waits until there is room.

    `size` None sets no limit.  With 0 nothing can ever be spawned.
    """

    def __init__(self, size: int | None = None, greenlet_class: Callable[..., Greenlet] | None = None) -> None:
        if size is not None and size < 0:
            raise ValueError(f"the size of a pool must not be negative: {size!r}")
        super().__init__()
        self.size = size
        if greenlet_class is not None:
            self.greenlet_class = greenlet_class
        self._semaphore: Semaphore | DummySemaphore = DummySemaphore() if size is None else Semaphore(size)

    def wait_available(self, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds for room.  Return how many greenlets could be spawned at once."""
        return self._semaphore.wait(timeout)

    def _awaited(self) -> bool:
        return isinstance(self._semaphore, Semaphore) and self._semaphore.linkcount() > 0

    def full(self) -> bool:
        """Return whether `spawn` would wait."""
        return self.free_count() <= 0

    def free_count(self) -> int:
        """How many more greenlets have room; 1 in a pool without a limit."""
        return 1 if self.size is None else max(0, self.size - len(self.greenlets))

    def add(self, greenlet: Any, blocking: bool = True, timeout: float | None = None) -> None:
        """Track `greenlet`, after waiting for room up to `timeout` seconds.

        Raises PoolFull when there is none; at once if not `blocking`.
        """
        if greenlet in self.greenlets:
            return
        if not self._semaphore.acquire(blocking, timeout):
            raise PoolFull(f"{self.size} greenlets run already")
        try:
            Group.add(self, greenlet)
        except BaseException:
            self._semaphore.release()
            raise

    def start(self, greenlet: Greenlet, blocking: bool = True, timeout: float | None = None) -> None:
        """Add a greenlet that has not been started (see `add`), and start it."""
        self.add(greenlet, blocking, timeout)
        greenlet.start()

    def _discard(self, greenlet: Any) -> None:
        if greenlet in self.greenlets:  # else `discard` came before the link
            Group._discard(self, greenlet)
            self._semaphore.release()


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
