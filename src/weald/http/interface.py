"""Which interface an application has: ASGI or WSGI.

Called by: asgi_server.py, weald.asgi, weald.serve.

A module of its own, because it needs neither server.
"""

import inspect
from typing import Any

__all__ = ["interface_of"]


def interface_of(application: Any) -> str:
    """Return "asgi" if `application` is a coroutine function or an object with an `async def __call__`, else "wsgi"."""
    if inspect.isclass(application):
        return "asgi" if hasattr(application, "__await__") else "wsgi"
    call = application
    while hasattr(call, "func") and not inspect.isfunction(call) and callable(call.func):  # functools.partial
        call = call.func
    if inspect.iscoroutinefunction(call):
        return "asgi"
    return "asgi" if inspect.iscoroutinefunction(getattr(call, "__call__", None)) else "wsgi"  # noqa: B004
