"""`time` on greenlets: `sleep` parks the calling greenlet; everything else is the stdlib's.

Called by: users, weald.monkey, select.py, socket.py.
"""

import sys
import time as _stdlib
from math import ldexp
from operator import index
from typing import TYPE_CHECKING, Any

from weald import _core
from weald._base.builtin import as_builtins

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from time import *  # noqa: F403

    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

__implements__ = ["sleep"]
__imports__ = [name for name in vars(_stdlib) if not name.startswith("_") and name not in __implements__]
__all__ = sorted([*__implements__, *__imports__])


# From 3.15 on any real number that C converts to a float (a Decimal, a Fraction) is a duration.
_ANY_REAL = sys.version_info >= (3, 15)


def to_seconds(value: float) -> float:
    """A duration converted as C code does it, with the same errors; it may be negative."""
    seconds = value if isinstance(value, float) else ldexp(value, 0) if _ANY_REAL else float(index(value))
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    if abs(seconds) > 2**63 / 1e9:
        raise OverflowError("timestamp too large to convert to C _PyTime_t")
    return seconds


def sleep(seconds: float, /, ref: bool = True) -> None:
    """Let others run for `seconds`; 0 yields once.  The errors are those of time.sleep.

    Without `ref` the sleeper does not count as something that could still wake another greenlet.
    """
    length = to_seconds(seconds)
    if length < 0.0:
        raise ValueError("sleep length must be non-negative")
    _core.sleep(length, ref)


as_builtins(globals(), _stdlib)
