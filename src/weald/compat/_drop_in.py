"""What weald does differently once gevent's name leads to it.

Called by: _door.py, once gevent has been imported.  Importing this changes weald's hooks, once in a process.

`docs/migrating.md` tells what stays as weald has it.
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

os.waitpid = _fork.waitpid

# gevent patches these two with functions of its own.
for _name in ("fork", "forkpty"):
    if hasattr(stdlib_os, _name):
        setattr(os, _name, getattr(_fork, _name))
        os.__imports__.remove(_name)
        os.__implements__.append(_name)


class _ThreadName(originals.Listener):
    """Has the patched `threading.Thread` say that it is `gevent.threading`'s, as gevent's does.

    Programs look at that to know whether threads are greenlets.  pyzmq does: otherwise the thread that frees what was
    sent without copying waits in libzmq, and stops all others.
    """

    def did_patch_module(self, source: Any, target: ModuleType) -> None:
        if target is stdlib_threading:
            target.Thread.__module__ = "gevent.threading"


originals.listeners.append(_ThreadName())
if originals.is_module_patched("threading"):
    _ThreadName().did_patch_module(None, stdlib_threading)
