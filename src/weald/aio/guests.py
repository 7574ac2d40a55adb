"""Greenlets of other libraries inside coroutines, SQLAlchemy's above all: whoever resumes one becomes its parent.

Called by: weald.aio.loop.

SQLAlchemy's asyncio half runs plain functions in greenlets of its own.  Such a greenlet waits for a coroutine by
switching to its parent: the greenlet in which its task began.  asyncio's loop runs all tasks in one greenlet.  weald's
loop goes on in another one when a coroutine blocks, and `await_` begins a coroutine in its caller's.
"""

from types import ModuleType
from typing import Any

from greenlet import getcurrent, greenlet

from weald._base.imports import whenever_imported

__all__ = ["mend"]


def mend() -> None:
    """Mend the libraries' classes, whether they are imported already or later."""
    for name in ("sqlalchemy.util.concurrency", "sqlalchemy.util._concurrency_py3k", "awaitlet.base"):
        whenever_imported(name, _mend_class)


def _mend_class(module: ModuleType) -> None:
    shim = getattr(module, "_concurrency_shim", None)  # SQLAlchemy 2.1's, which makes the class when it is first needed
    kind = getattr(module if shim is None else shim, "_AsyncIoGreenlet", None)
    if isinstance(kind, type) and "switch" not in vars(kind):
        kind.switch = _switch  # type: ignore[attr-defined]
        kind.throw = _throw  # type: ignore[attr-defined]


def _switch(self: greenlet, /, *args: Any, **kwargs: Any) -> Any:
    self.parent = getcurrent()
    return greenlet.switch(self, *args, **kwargs)


def _throw(self: greenlet, /, *args: Any) -> Any:
    self.parent = getcurrent()
    return greenlet.throw(self, *args)
