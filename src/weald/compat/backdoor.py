"""gevent.backdoor: a Python prompt into the running process, over TCP.

Called by: users, as gevent.backdoor.

A client can do all that the process can, so bind to 127.0.0.1.

Invariant: while a session's greenlet runs, and only then, sys.stdin, stdout and stderr are the session's.
"""

import builtins
import sys
from code import InteractiveConsole
from socket import SOL_TCP, TCP_NODELAY
from typing import TYPE_CHECKING, Any

from weald._base.names import more_names
from weald._core import Greenlet, getcurrent
from weald.pool import Pool
from weald.server import StreamServer

__all__ = ["BackdoorServer"]

sys.ps1 = getattr(sys, "ps1", ">>> ")
sys.ps2 = getattr(sys, "ps2", "... ")


class _Streams:
    """sys.stdin, sys.stdout or sys.stderr as each greenlet has them: a session's own, or the process's."""

    def __init__(self, original: Any, name: str) -> None:
        self._original, self._name = original, name

    def _mine(self) -> Any:
        session = _session_of(getcurrent())
        return self._original if session is None else getattr(session, self._name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine(), name)

    def __iter__(self) -> Any:
        return iter(self._mine())


def _session_of(greenlet: Any) -> Any:
    return getattr(greenlet, "_backdoor_session", None)


class _Input:
    """The standard input of a session, read line by line."""

    encoding = "utf-8"

    def __init__(self, lines: Any) -> None:
        self._lines = lines

    def readline(self, *args: Any) -> str:
        try:
            line: str = self._lines.readline(*args)
        except UnicodeError:  # a Ctrl-C typed into telnet
            return ""
        return line.replace("\r\n", "\n")

    def fileno(self) -> int:
        raise OSError("a backdoor session is not a terminal")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lines, name)


class _Output:
    """The standard output of a session, written at once."""

    encoding = "utf-8"

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def write(self, data: Any) -> int:
        self._sock.sendall(data if isinstance(data, bytes) else data.encode(self.encoding))
        return len(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError("a backdoor session is not a terminal")


class _Session:
    def __init__(self, conn: Any) -> None:
        self.lines = conn.makefile(mode="r", encoding="utf-8")
        self.stdin = _Input(self.lines)
        self.stdout = self.stderr = _Output(conn)


def _share_streams() -> None:
    """Make the standard streams go to the connection of the greenlet that uses them."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Streams):
            setattr(sys, name, _Streams(stream, name))


def _unshare_streams() -> None:
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Streams):
            setattr(sys, name, stream._original)


_sessions = 0


class BackdoorServer(StreamServer):
    """A prompt for each client that connects; `locals` are the names defined at its start, `banner` is its greeting.

    `stop` ends the sessions.
    """

    def __init__(self, listener: Any, locals: dict[str, Any] | None = None, banner: Any = None, **server_args: Any):
        super().__init__(listener, spawn=Pool(greenlet_class=Greenlet), **server_args)
        self.locals: dict[str, Any] = {"__doc__": None, "__name__": "__console__", **(locals or {})}
        self.banner = banner
        self.stderr = sys.stderr

    def _create_interactive_locals(self) -> dict[str, Any]:
        # The module, not its dict: else `locals()` at the prompt shows all of it.
        return {**self.locals, "builtins": builtins, "__builtins__": builtins}

    def handle(self, conn: Any, _address: Any) -> None:
        """One session, until its end of input or quit()."""
        global _sessions
        try:
            conn.setsockopt(SOL_TCP, TCP_NODELAY, True)
        except OSError:
            pass
        session = _Session(conn)
        getcurrent()._backdoor_session = session  # type: ignore[attr-defined]
        _sessions += 1
        _share_streams()
        try:
            InteractiveConsole(self._create_interactive_locals()).interact(banner=self.banner, exitmsg="")
        except SystemExit:
            pass  # quit()
        finally:
            del getcurrent()._backdoor_session  # type: ignore[attr-defined]
            _sessions -= 1
            if not _sessions:
                _unshare_streams()
            session.lines.close()
            conn.close()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(f"USAGE: {sys.argv[0]} PORT [banner]")
    else:
        greeting = sys.argv[2] if len(sys.argv) > 2 else None
        BackdoorServer(("127.0.0.1", int(sys.argv[1])), banner=greeting, locals={"hello": "world"}).serve_forever()


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.backdoor")
