"""`select` on greenlets: select, poll and epoll that park the calling greenlet.

Called by: users, weald.monkey, selectors.py, weald.http.disconnected.

The stdlib's own poll and epoll objects find out what is ready, without a timeout; the loop only says when to call them
again.  So results, errors and every kind of event are the stdlib's.  A call that does not wait still lets other
greenlets run, because programs poll in loops.
"""

import errno
import os
import select as _stdlib
from collections.abc import Iterable
from contextlib import suppress
from math import ceil
from select import (
    EPOLLET,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from weald._base.builtin import as_builtins
from weald._base.waiting import until
from weald._core import READ, WRITE, Descriptor, has_looked, monotonic, poll_fds, sleep, waits_natively
from weald.time import to_seconds

__implements__ = ["epoll", "poll", "select"]
__imports__ = [name for name in vars(_stdlib) if not name.startswith("_") and name not in __implements__]
__all__ = sorted([*__implements__, *__imports__])

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from select import *  # noqa: F403

    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

_poll = _stdlib.poll
_epoll = _stdlib.epoll

_LONGEST_POLL = 2**31 - 1  # milliseconds: poll(2) takes an int
_PAUSE = 0.01  # seconds between two checks if there is no descriptor to wait with
_DEFAULT_MASK = POLLIN | POLLPRI | POLLOUT
_READABLE = POLLIN | POLLHUP | POLLERR | POLLNVAL
_WRITABLE = POLLOUT | POLLERR | POLLNVAL
_EXCEPTIONAL = POLLPRI | POLLNVAL
_LOOP_EVENTS = {POLLIN: READ, POLLOUT: WRITE, POLLIN | POLLOUT: READ | WRITE}


def _loop_events(masks: dict[int, int]) -> dict[int, int] | None:
    """Return the loop's names for these events (POLLIN…) of descriptors; None if it does not know them all."""
    try:
        return {fd: _LOOP_EVENTS[mask] for fd, mask in masks.items()}
    except KeyError:
        return None


def _wait(masks: dict[int, int], seconds: float | None) -> dict[int, int]:
    """Park until one of `masks` (descriptor: POLLIN…) may be ready, or for `seconds`; return what the loop reported."""
    if waits_natively():
        poller = _poll()
        for fd, mask in masks.items():
            poller.register(fd, mask)
        poller.poll(None if seconds is None else ceil(max(seconds, 0.0) * 1000.0))
        return {}
    wanted = _loop_events(masks)
    if wanted is not None:
        return poll_fds(wanted, seconds)
    # An epoll object, which knows all of poll's events, is itself readable when something in it is ready.
    made = _epoll_or_pause(seconds)
    if made is None:
        return {}
    with made as inner:
        for fd, mask in masks.items():
            # A regular file cannot be registered, nor would its state ever change.
            with suppress(PermissionError):
                inner.register(fd, mask)
        poll_fds({inner.fileno(): READ}, seconds)
    return {}


def _epoll_or_pause(seconds: float | None) -> Any:
    """Return a new epoll object; if no descriptor is left for it, None after a pause of `seconds` at most."""
    try:
        return _epoll()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
    sleep(_PAUSE if seconds is None else min(seconds, _PAUSE))
    return None


def _wait_for_change(masks: dict[int, int], seconds: float | None) -> dict[int, int]:
    """As `_wait`, but wait for a change, because an event that does not count is reported again and again."""
    if waits_natively():
        return _wait(masks, _PAUSE if seconds is None else min(seconds, _PAUSE))
    made = _epoll_or_pause(seconds)
    if made is None:
        return {}
    with made as inner:
        for fd, mask in masks.items():
            with suppress(OSError):  # closed meanwhile, which the caller will find
                inner.register(fd, mask | EPOLLET)
        known = dict(inner.poll(0))
        if not any(events & ~(POLLHUP | POLLERR) for events in known.values()):
            poll_fds({inner.fileno(): READ}, seconds)
    return {}


def _ready(
    poller: "_stdlib.poll", masks: dict[int, int], seconds: float | None, counts: dict[int, int] | None = None
) -> list[tuple[int, int]]:
    """Return the events that `poller` finds, as soon as there are any, or after `seconds`.

    `masks` are the descriptors and events it looks for.  `counts` says which events of a descriptor count (None: all).
    Without `counts` other greenlets may change `masks` meanwhile; with it, OSError(EBADF) if a descriptor is not open.
    """
    found = counted = poller.poll(0)
    if counts is not None and found:
        counted = []
        for fd, events in found:
            if events & POLLNVAL:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if events & counts[fd]:
                counted.append((fd, events))
    if counted or seconds == 0.0:
        has_looked()
        return counted
    return _wait_until_ready(poller, masks, seconds, counts, bool(found))


def _wait_until_ready(
    poller: "_stdlib.poll",
    masks: dict[int, int],
    seconds: float | None,
    counts: dict[int, int] | None,
    idle: bool,  # whether there was an event that does not count, which would be reported again at once
) -> list[tuple[int, int]]:
    """As `_ready`, called when nothing is ready yet.

    An event that the loop has reported counts as found, even if another greenlet has taken the data before this one.
    """
    deadline = None if seconds is None else monotonic() + seconds
    while seconds is None or seconds > 0.0:
        reported = _wait_for_change(masks, seconds) if idle else _wait(masks, seconds)
        found = poller.poll(0)
        idle = False
        if found and counts is not None:
            found = [(fd, events) for fd, events in found if events & counts[fd]]
            idle = not found
        elif not found and reported:
            for fd, seen in reported.items():
                events = ((POLLIN if seen & READ else 0) | (POLLOUT if seen & WRITE else 0)) & masks.get(fd, 0)
                if events:
                    found.append((fd, events))
        if found:
            return found
        if deadline is not None:
            seconds = deadline - monotonic()
    return []


def _fileno(file: Any) -> int:
    """The descriptor of an integer or an object with `fileno`, by the rules of PyObject_AsFileDescriptor."""
    if isinstance(file, int):
        fd = file
    else:
        try:
            method = file.fileno
        except AttributeError:
            raise TypeError("argument must be an int, or have a fileno() method.") from None
        fd = method()
        if not isinstance(fd, int):
            raise TypeError("fileno() returned a non-integer")
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


def _to_seconds(timeout: Any) -> float:
    try:
        return to_seconds(timeout)
    except TypeError:
        raise TypeError("timeout must be a number or None") from None


def select(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """select.select(); waits up to `timeout` seconds, None for ever.  Any descriptor will do, above 1023 too.

    Raises OSError(EBADF) if one is not open.  A descriptor that is closed meanwhile is ready, as with the system's.
    """
    if timeout is not None:
        timeout = _to_seconds(timeout)
        if timeout < 0.0:
            raise ValueError("timeout must be non-negative")
    masks: dict[int, int] = {}
    counts: dict[int, int] = {}
    wanted = []
    for files, mask, ready in ((rlist, POLLIN, _READABLE), (wlist, POLLOUT, _WRITABLE), (xlist, POLLPRI, _EXCEPTIONAL)):
        numbered = [(_fileno(file), file) for file in files]
        wanted.append((numbered, ready))
        for fd, _ in numbered:
            masks[fd] = masks.get(fd, 0) | mask
            counts[fd] = counts.get(fd, 0) | ready
    poller = _poll()
    for fd, mask in masks.items():
        poller.register(fd, mask)
    found = dict(_ready(poller, masks, timeout, counts))
    r, w, x = [[file for fd, file in numbered if found.get(fd, 0) & ready] for numbered, ready in wanted]
    return r, w, x


class poll:
    """select.poll()'s object; `poll()` parks the greenlet."""

    def __init__(self) -> None:
        self._poller = _poll()
        self._masks: dict[int, int] = {}
        self._polling = False

    def register(self, fd: Any, eventmask: int = _DEFAULT_MASK, /) -> None:
        """Look for `eventmask` (POLLIN, …) of `fd`, a number or an object with `fileno`."""
        self._poller.register(fd, eventmask)
        self._masks[_fileno(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """As `register`; raises FileNotFoundError for a descriptor that is not registered."""
        self._poller.modify(fd, eventmask)
        self._masks[_fileno(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Raises KeyError for a descriptor that is not registered."""
        self._poller.unregister(fd)
        del self._masks[_fileno(fd)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """(descriptor, events) of those that are ready, after at most `timeout` milliseconds; None, <0: no limit.

        Raises RuntimeError if another greenlet polls with this object.
        """
        seconds = None
        if timeout is not None:
            timeout = _to_seconds(timeout)
            if timeout > _LONGEST_POLL:
                raise OverflowError("timeout is too large")
            if timeout >= 0:
                seconds = ceil(timeout) / 1000.0
        if self._polling:
            raise RuntimeError("concurrent poll() invocation")
        self._polling = True
        try:
            return _ready(self._poller, self._masks, seconds)
        finally:
            self._polling = False


class epoll:
    """select.epoll; `poll()` parks the greenlet until the epoll descriptor itself is readable."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._open(_epoll(sizehint, flags))

    def _open(self, inner: _stdlib.epoll) -> None:
        self._epoll = inner
        self._descriptor = Descriptor(inner.fileno())

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """Return an object for the epoll descriptor `fd`."""
        self = cls.__new__(cls)
        self._open(_epoll.fromfd(fd))
        return self

    @classmethod
    def adopt(cls, inner: _stdlib.epoll) -> Self:
        """Return an object that waits with `inner`, of the standard library."""
        self = cls.__new__(cls)
        self._open(inner)
        return self

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()

    def close(self) -> None:
        """Close.  Greenlets that wait in `poll` find nothing after their timeout; without one they get OSError."""
        self._descriptor.close()
        self._epoll.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._epoll.closed

    def __enter__(self) -> Self:
        if self.closed:
            raise ValueError("I/O operation on closed epoll object")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
        /,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the number of the epoll descriptor."""
        return self._epoll.fileno()

    def register(self, fd: Any, eventmask: int = EPOLLIN | EPOLLPRI | EPOLLOUT) -> None:
        """Look for `eventmask` (EPOLLIN, …) of `fd`.  Raises FileExistsError if it is registered already."""
        self._epoll.register(fd, eventmask)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Change what is looked for.  Raises FileNotFoundError if `fd` is not registered."""
        self._epoll.modify(fd, eventmask)

    def unregister(self, fd: Any) -> None:
        """Remove `fd`.  Raises FileNotFoundError if it is not registered."""
        self._epoll.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """(descriptor, events) of those that are ready, after at most `timeout` seconds; None, <0: no limit."""
        if timeout is not None and (timeout := _to_seconds(timeout)) < 0.0:
            timeout = None
        if waits_natively():
            return self._epoll.poll(timeout, maxevents)
        found = self._epoll.poll(0, maxevents)
        if found or timeout == 0:
            has_looked()
            return found
        deadline = None if timeout is None else monotonic() + timeout
        try:
            found = until(self._descriptor.wait_read, timeout, self._epoll.poll, 0, maxevents) or []
        except TimeoutError:
            return [] if self._epoll.closed else self._epoll.poll(0, maxevents)
        except (OSError, ValueError) as error:
            if not self._epoll.closed and getattr(error, "errno", None) not in (errno.EBADF, errno.EINVAL):
                raise
            # Closed meanwhile, or another file by now: no event will come.
            if deadline is None:
                raise error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
            sleep(max(deadline - monotonic(), 0.0))
            return []
        return found


as_builtins(globals(), _stdlib)
