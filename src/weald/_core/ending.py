"""The end of a fork's child in which the greenlet that has forked was not the main greenlet.

Called by: hub.pyx.
"""

import atexit
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

__all__ = ["end_process"]


_NOT_JOINED = (type(threading.main_thread()), threading._DummyThread)


def end_process(error: Any, tb: TracebackType | None) -> NoReturn:
    """End this process as the interpreter does after `error`, an exception or its class, in the main thread.

    Without an error it ends as the child does when a thread has forked and its function returns: with status 0, and
    without calling `atexit` functions.
    """
    status = 0
    if error is not None:
        if isinstance(error, type):
            error = error()
        status = _status(error, tb)
        for thread in threading.enumerate():
            if not thread.daemon and not isinstance(thread, _NOT_JOINED):
                thread.join()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def _status(error: BaseException, tb: TracebackType | None) -> int:
    """The exit status for `error`, whose message or traceback is printed."""
    if not isinstance(error, SystemExit):
        traceback.print_exception(type(error), error, tb)
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
