"""gevent.builtins: the standard library's; imports need no help from a coroutine library any more."""

from builtins import *  # noqa: UP029
from builtins import __import__ as __import__
from typing import Any

__target__ = "builtins"
__implements__: list[str] = []
__imports__: list[str] = []
__all__: list[Any] = []
