"""Drivers in C that wait by themselves, and have a place for another way to wait: PostgreSQL's psycopg2 and psycopg.

Called by: weald.monkey.

A wait that is ended by a Timeout or a kill leaves psycopg2's connection closed: psycopg2 itself closes one whose wait
callback has raised.
"""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from weald._base.originals import get_original
from weald._core import wait_read, wait_write, waits_natively
from weald.monkey._imports import whenever_imported

__all__ = ["mend"]


def mend() -> None:
    """Have both wait in Python, whether they are imported already or later."""
    _mend_psycopg()
    whenever_imported("psycopg2.extensions", _set_wait_callback)
    whenever_imported("psycopg2", _allow_copy)


def _mend_psycopg() -> None:
    """Have psycopg wait in Python: its C code waits in poll(2) otherwise, and it does not know that weald has patched.

    It waits by its `wait_select`, which every version has; weald's select has no limit of 1024 descriptors.
    """
    os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_select")
    waiting = sys.modules.get("psycopg.waiting")
    if waiting is not None and waiting.wait is getattr(waiting, "wait_c", None):
        waiting.wait = waiting.wait_select  # type: ignore[attr-defined]


# ------------------------------------------------------------------ psycopg2

_OK, _READ, _WRITE = range(3)  # psycopg2.extensions.POLL_OK, …


def _set_wait_callback(extensions: Any) -> None:
    if extensions.get_wait_callback() is None:  # else the program has one of its own
        extensions.set_wait_callback(wait)


def wait(connection: Any) -> None:
    """Park until what `connection`, of psycopg2, has begun is done."""
    while (state := connection.poll()) != _OK:
        if state not in (_READ, _WRITE):
            raise sys.modules["psycopg2"].OperationalError(f"unexpected state of the connection: {state!r}")
        fd = connection.fileno()
        if waits_natively():
            poller = get_original("select", "poll")()
            poller.register(fd, select.POLLIN if state == _READ else select.POLLOUT)
            poller.poll()
        elif state == _READ:
            wait_read(fd)
        else:
            wait_write(fd)


_copying = 0


@contextmanager
def _natively(extensions: Any) -> Iterator[None]:
    """In the block psycopg2 waits in libpq."""
    global _copying
    if not _copying and extensions.get_wait_callback() is not wait:
        yield
        return
    _copying += 1
    extensions.set_wait_callback(None)
    try:
        yield
    finally:
        _copying -= 1
        if not _copying:
            extensions.set_wait_callback(wait)


def _allow_copy(psycopg2: Any) -> None:
    """psycopg2 refuses COPY while there is a wait callback: the cursors that it makes by itself do without one then.

    So COPY stalls the loop, as it does in libpq anyway.  Cursors of a program's own class are refused still.
    """
    extensions, connect = psycopg2.extensions, psycopg2._connect

    class cursor(extensions.cursor):  # type: ignore[misc, name-defined]
        def copy_from(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_from(*args, **kwargs)

        def copy_to(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_to(*args, **kwargs)

        def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_expert(*args, **kwargs)

    def connected(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        if connection.cursor_factory is None:
            connection.cursor_factory = cursor
        return connection

    psycopg2._connect = connected
