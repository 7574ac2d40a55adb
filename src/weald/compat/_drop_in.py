"""Changes weald's behaviour once gevent's name leads to it.

Called by: _door.py, once gevent has been imported.  Importing this changes weald's hooks, once in a process.

`docs/migrating.md` lists the differences from gevent that remain.
"""

import os as stdlib_os
import signal as stdlib_signal
import threading as stdlib_threading
from types import ModuleType
from typing import Any

from weald import os, signal
from weald._base import originals
from weald.compat import (
    _fork,
    _surface,  # gives weald's classes what gevent's have besides
)
from weald.compat import hub as _hub  # adopts the hubs that there are

__all__: list[str] = []


def _print(hub: Any, handler: object, exc_info: tuple[Any, ...]) -> None:
    hub.handle_error(handler, *exc_info)


# gevent prints what a handler of SIGCHLD raises.
signal.reporters[stdlib_signal.SIGCHLD] = _print

if stdlib_os.waitpid is os.waitpid:  # patched already
    stdlib_os.waitpid = _fork.waitpid
os.waitpid = _fork.waitpid

# gevent patches these two with functions of its own.
for _name in ("fork", "forkpty"):
    if hasattr(stdlib_os, _name):
        setattr(os, _name, getattr(_fork, _name))
        os.__imports__.remove(_name)
        os.__implements__.append(_name)

# `from gevent.os import *` brings no `open`.
_forks = ["fork_and_watch", "fork_gevent", "forkpty_and_watch", "forkpty_gevent"]
os.__all__[:] = sorted({*os.__implements__, *os.__extensions__, *_forks})


class _ThreadName(originals.Listener):
    """Gives the patched `threading.Thread` the module name `gevent.threading`, as gevent does.

    Programs use it to find out whether threads are greenlets.  pyzmq does: otherwise the thread that frees messages
    sent without copying waits in libzmq, and stops all others.
    """

    def did_patch_module(self, source: Any, target: ModuleType) -> None:
        if target is stdlib_threading:
            target.Thread.__module__ = "gevent.threading"


originals.listeners.append(_ThreadName())
if originals.is_module_patched("threading"):
    _ThreadName().did_patch_module(None, stdlib_threading)
