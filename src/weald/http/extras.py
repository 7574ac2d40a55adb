"""The error message for a package that HTTP needs and that is not installed.

Called by: protocol.pyx, http2.py, http2_stream.py, websocket.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["required"]


@contextmanager
def required(purpose: str, package: str, *modules: str) -> Iterator[None]:
    """If `package`, which the block imports for `purpose`, is missing, raise ModuleNotFoundError with advice.

    `modules` are the other modules that the package brings or needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (package, *modules):
            raise
        text = f"weald's {purpose} needs {package}, which comes with weald and is missing here: pip install {package}"
        raise ModuleNotFoundError(text, name=package) from None
