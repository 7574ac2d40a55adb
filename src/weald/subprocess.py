"""`subprocess` on greenlets: starting, talking to and waiting for children parks the calling greenlet.

Called by: users, weald.monkey, weald.os (`popen`).

Popen derives from the stdlib's class; only the parts that block are replaced.  Where the stdlib's code only calls
functions that block (`run`, `Popen.__init__`, `_communicate`, …), it runs with other globals: `_Globals`.

Invariants:
- A child is reaped only by a call that waits for that child, by its process id, and never while a greenlet parks.  No
  signal handler reaps, and no call waits for just any child.
- Pipes stay blocking descriptors (see _base/pipes.py), so that a pipe may be given to another child.
"""

import os as _os
import subprocess as _stdlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from subprocess import CalledProcessError as CalledProcessError
from subprocess import CompletedProcess as CompletedProcess
from subprocess import SubprocessError as SubprocessError
from subprocess import TimeoutExpired as TimeoutExpired
from subprocess import list2cmdline as list2cmdline
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, AnyStr

from weald._base.buffered import TextIOWrapper, Turns
from weald._base.children import await_end
from weald._base.gathered import Gathered
from weald._base.names import more_names
from weald._base.pipes import open_shared, read_shared, write_shared
from weald._base.resident import Resident
from weald._base.waiting import until
from weald._core import READ, WRITE, AsyncResult, asked_in_vain, monotonic, poll_fds, waits_natively
from weald.fileobject import FileObjectPosix
from weald.selectors import EVENT_READ, EVENT_WRITE, PollSelector, SelectorKey

if TYPE_CHECKING:
    from subprocess import DEVNULL as DEVNULL
    from subprocess import PIPE as PIPE
    from subprocess import STDOUT as STDOUT
    from subprocess import call as call
    from subprocess import check_call as check_call
    from subprocess import check_output as check_output
    from subprocess import getoutput as getoutput
    from subprocess import getstatusoutput as getstatusoutput
    from subprocess import run as run
else:
    from subprocess import *  # noqa: F403

__implements__ = ["Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"]
__imports__ = ["list2cmdline", *(name for name in _stdlib.__all__ if name not in __implements__)]
__extensions__ = ["MAXFD"]
__all__ = sorted([*__implements__, *__imports__, *__extensions__])

MAXFD = _os.sysconf("SC_OPEN_MAX")


class _Over:
    """A module with some of its names replaced; all others are looked up there each time."""

    def __init__(self, module: ModuleType, **replaced: object) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _Globals(dict[str, Any]):
    """The globals of the stdlib's functions here: this module's names, then those of the stdlib's module at the moment.

    Functions of the module that they call, such as `_communicate_io_posix` from 3.15 on, get the same globals.
    """

    def __missing__(self, name: str) -> Any:
        found = vars(_stdlib)[name]
        return _over_ours(found) if getattr(found, "__globals__", None) is vars(_stdlib) else found


class _Outputs(dict[Any, Gathered]):
    """The output of each pipe.  The stdlib's code puts a list for each pipe; it gets a Gathered instead."""

    def __setitem__(self, pipe: Any, chunks: object) -> None:
        super().__setitem__(pipe, Gathered())


class _Selector(PollSelector):
    """What `communicate` waits with.

    It says what the loop has reported, without asking the system first, nor once more then: `read_shared` and
    `write_shared` do that.
    """

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[int, SelectorKey] = {}
        self._wanted: dict[int, int] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = super().register(fileobj, events, data)
        self._keys[key.fd], self._wanted[key.fd] = key, _LOOP_EVENTS[events]
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        key = super().unregister(fileobj)
        del self._keys[key.fd], self._wanted[key.fd]
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if waits_natively() or (timeout is not None and timeout <= 0):
            return super().select(timeout)
        return [(self._keys[fd], self._keys[fd].events) for fd in poll_fds(self._wanted, timeout, own=True)]


_LOOP_EVENTS = {EVENT_READ: READ, EVENT_WRITE: WRITE}
_globals = _Globals(
    __name__=__name__,
    _PopenSelector=_Selector,
    _time=monotonic,
    _PIPE_BUF=65536,  # bytes offered at a time; `write_shared` writes as much of them as there is room for
    io=_Over(_stdlib.io, open=open_shared, TextIOWrapper=TextIOWrapper),  # type: ignore[attr-defined]
    os=_Over(_os, read=read_shared, write=write_shared),
)


def _sent_until(error: BaseException) -> int | None:
    """Return how many bytes of its input the `_communicate` that `error` has ended had sent; None if that is stored.

    Python 3.15's keeps the number in a local variable until it returns.
    """
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_name == "_communicate_io_posix":
            sent: int = at.tb_frame.f_locals["input_offset"]
            return sent
        at = at.tb_next
    return None


def _over_ours(function: Any) -> Any:
    """The stdlib's function with this module's globals."""
    ours = FunctionType(function.__code__, _globals, function.__name__, function.__defaults__)
    ours.__kwdefaults__ = function.__kwdefaults__
    ours.__qualname__ = function.__qualname__
    return ours


class Popen(_stdlib.Popen[AnyStr]):
    """subprocess.Popen; its methods and the pipes' park the greenlet.  Pipes may be used by many greenlets.

    Files that become a child's standard streams are made blocking, as the child expects.  Both processes share that
    flag, so close your end of a socket of weald's.
    """

    def _get_handles(self, stdin: Any, stdout: Any, stderr: Any) -> tuple[Any, ...]:
        if stdout is _stdlib.STDOUT:
            raise ValueError("STDOUT can only be used for stderr")  # as the stdlib's from Python 3.13 on
        for stream in (stdin, stdout, stderr):
            _make_blocking(stream)
        found: tuple[Any, ...] = super()._get_handles(stdin, stdout, stderr)  # type: ignore[misc]
        return found

    if not TYPE_CHECKING:
        __init__ = _over_ours(_stdlib.Popen.__init__)
        _execute_child = _over_ours(_stdlib.Popen._execute_child)
        _exchange = _over_ours(_stdlib.Popen._communicate)
        _stdlibs_communicate = _over_ours(_stdlib.Popen.communicate)
        if hasattr(_stdlib.Popen, "_remaining_time"):  # Python 3.15 has a function instead
            _remaining_time = _over_ours(_stdlib.Popen._remaining_time)
        _check_timeout = _over_ours(_stdlib.Popen._check_timeout)

    @property
    def _fileobj2output(self) -> _Outputs:
        try:
            found: _Outputs = self.__dict__["_outputs"]
        except KeyError:
            raise AttributeError("_fileobj2output") from None
        return found

    @_fileobj2output.setter
    def _fileobj2output(self, outputs: object) -> None:
        self.__dict__["_outputs"] = _Outputs()

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """subprocess.Popen.communicate(); if it is cut short, the next call goes on: no input or output is lost.

        But for what is in the buffer of the only pipe, if the program has read from that before.
        """
        started: bool = self._communication_started  # type: ignore[has-type]
        pipes: list[Any] = [pipe for pipe in (self.stdin, self.stdout, self.stderr) if pipe is not None]
        if not isinstance(input, str | bytes | None):
            with suppress(TypeError):  # no buffer, or not contiguous: the stdlib's raises the right error
                input = memoryview(input).cast("B")  # of any other view it would send as many bytes as there are items
        if (
            timeout is not None
            or started
            or not pipes
            or (len(pipes) == 1 and not (_is_new(pipes[0]) and (input or pipes[0] is not self.stdin)))
        ):
            return self._stdlibs_communicate(input, timeout)  # type: ignore[attr-defined, no-any-return]
        # With one pipe the stdlib's would read or write to the end without storing anything, and lose it if it is cut
        # short.
        try:
            found: tuple[Any, Any] = self._communicate(input, None, None)
        finally:
            self._communication_started = True
        self.wait()
        return found

    def _communicate(self, input: Any, endtime: float | None, orig_timeout: float | None) -> tuple[Any, Any]:
        """As the stdlib's; a call after one that was cut short sends the rest of that one's input."""
        if not hasattr(self, "_fileobj2output"):  # it was cut short before it had begun
            self._communication_started = False
            input = self.__dict__.setdefault("_first_input", input)
        elif input is None and self.stdin is not None and not self.stdin.closed:
            input = self._input  # type: ignore[attr-defined]
        try:
            found: tuple[Any, Any] = self._exchange(input, endtime, orig_timeout)  # type: ignore[attr-defined]
        except BaseException as error:
            sent = _sent_until(error)
            if sent is not None:
                self._input_offset = sent
            raise
        return found

    def poll(self) -> int | None:
        """Return the return code, None if the child has not ended.  Calling it in a loop lets others run."""
        if self.returncode is None:
            asked_in_vain()
        return super().poll()

    def _wait(self, timeout: float | None) -> int:
        """Return the return code.  Raises TimeoutExpired after `timeout` seconds."""
        code = self._reap()
        if code is None:
            code = until(partial(await_end, self.pid), timeout, self._reap)
        if code is None:
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout)
        return code

    def _reap(self) -> int | None:
        """Reap the child if it has ended; return its return code, None if it has not."""
        lock: Any = self._waitpid_lock  # type: ignore[attr-defined]
        # Another thread that holds the lock reaps without waiting, too.
        if lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(_os.WNOHANG)  # type: ignore[attr-defined]
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                lock.release()
        return self.returncode

    # ---------------------------------------------------------------- waiting for it as for other objects

    @property
    def result(self) -> AsyncResult[int]:
        """An AsyncResult that gets the return code when the child has ended."""
        found: AsyncResult[int] | None = self.__dict__.get("_result")
        if found is None:
            found = self.__dict__["_result"] = AsyncResult()
            if self.returncode is None:
                Resident(partial(self._tell, found))
            else:
                found.set(self.returncode)
        return found

    def _tell(self, found: AsyncResult[int]) -> None:
        try:
            found.set(self._wait(None))
        except Exception as error:
            found.set_exception(error)

    def rawlink(self, callback: Callable[["Popen[AnyStr]"], object]) -> None:
        """Call `callback(self)` in the hub when the child has ended."""
        self.result.rawlink(_Link(callback, self))

    def unlink(self, callback: Callable[["Popen[AnyStr]"], object]) -> None:
        """Take back one `rawlink(callback)`; unknown ones are ignored."""
        self.result.unlink(_Link(callback, self))

    def ready(self) -> bool:
        """Whether the child's end is known."""
        return self.result.ready()


def _is_new(pipe: Any) -> bool:
    """Whether this is a pipe of ours from which nobody has read, so that nothing is in its buffer, nor closed it."""
    turns = getattr(pipe, "_turns", None)
    return isinstance(turns, Turns) and turns.fd >= 0 and not turns.used


def _make_blocking(stream: Any) -> None:
    """Make a child's standard stream blocking: programs do not expect EAGAIN there."""
    if isinstance(stream, FileObjectPosix):
        stream.share()
    elif stream is not None and stream not in (_stdlib.PIPE, _stdlib.STDOUT, _stdlib.DEVNULL):
        with suppress(OSError):  # the stdlib raises it later
            fd = stream if isinstance(stream, int) else stream.fileno()
            if not _os.get_blocking(fd):
                _os.set_blocking(fd, True)


class _Link:
    """Calls `callback(child)`; equal to every other link that does."""

    __slots__ = ("_callback", "_child")

    def __init__(self, callback: Callable[[Any], object], child: Any) -> None:
        self._callback, self._child = callback, child

    def __call__(self, result: object) -> None:
        self._callback(self._child)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Link) and other._callback == self._callback and other._child is self._child

    __hash__ = None  # type: ignore[assignment]


_globals["Popen"] = Popen
for _name in ("call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"):
    _globals[_name] = globals()[_name] = _over_ours(getattr(_stdlib, _name))


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
