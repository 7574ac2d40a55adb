"""What is said when a package that HTTP needs is not installed.

Called by: protocol.pyx, http2.py, http2_stream.py, websocket.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["required"]


@contextmanager
def required(purpose: str, package: str, *modules: str) -> Iterator[None]:
    """In the block, the import of `package` for `purpose` says how to install it if it is missing.

    `modules` are those that the package brings or needs besides.  Raises ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (package, *modules):
            raise
        text = f"weald's {purpose} needs {package}: pip install 'weald[http]'"
        raise ModuleNotFoundError(text, name=package) from None
