"""What weald does differently once gevent's name leads to it.

Called by: _door.py, once gevent has been imported.  Importing this changes weald's hooks, once in a process.

`docs/migrating.md` tells what stays as weald has it.
"""

import os as stdlib_os
import signal as stdlib_signal
from typing import Any

from weald import os, signal
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
