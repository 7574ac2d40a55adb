"""SIGUSR2: a new program takes over the listeners, while this one goes on until it is stopped.

Called by: supervisor.py.

The running program is started again by its command line, with the Python, the weald and the options that are installed
now.  It gets the listeners as open descriptors; a variable of the environment names them.
"""

import json
import os
import socket
import sys
from collections.abc import Collection, Iterable, Mapping

from weald._core import report
from weald.serve.errors import ConfigError
from weald.serve.process import fork

__all__ = ["Handover", "start_program"]

_VARIABLE = "WEALD_HANDOVER"


class Handover:
    """The listeners that the process before this one has passed on; none if there was no such process.

    Raises ConfigError if they cannot be used.
    """

    def __init__(self) -> None:
        told = os.environ.pop(_VARIABLE, "")
        try:
            found = json.loads(told) if told else {}
            self.parent: int = found.get("parent", 0)
            self._sockets = {name: [_adopted(fd) for fd in fds] for name, fds in found.get("sockets", {}).items()}
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"what {_VARIABLE} says cannot be used: {error}") from None

    def parent_is_there(self) -> bool:
        """Whether the process before this one has not ended."""
        return self.parent != 0 and os.getppid() == self.parent

    def take(self, name: str) -> list[socket.socket]:
        """The listeners for the address `name`; an empty list if that process had none there."""
        return self._sockets.pop(name, [])

    def close_rest(self) -> None:
        """Close the listeners that were not taken: the options have changed."""
        for found in self._sockets.values():
            for sock in found:
                sock.close()
        self._sockets.clear()


def _adopted(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def start_program(sockets: Mapping[str, Iterable[socket.socket]], signals: Collection[int]) -> int:
    """Start this program again, with listeners by address; return its process id.  `signals` get their defaults there.

    Raises OSError if the system refuses a process.
    """
    fds = {name: [sock.fileno() for sock in found] for name, found in sockets.items()}
    pid = fork(signals)
    if pid:
        return pid
    try:
        for numbers in fds.values():
            for fd in numbers:
                os.set_inheritable(fd, True)
        environ = {**os.environ, _VARIABLE: json.dumps({"parent": os.getppid(), "sockets": fds})}
        if "WATCHDOG_PID" in environ:
            environ["WATCHDOG_PID"] = str(os.getpid())
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    except BaseException as error:
        report(f"weald: cannot start {sys.executable}: {error}\n")
    finally:
        os._exit(1)
