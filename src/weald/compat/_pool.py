"""gevent.pool's leftovers.

Called by: _names.py, for names of gevent.pool.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["pass_value"]


class pass_value:
    """A link that calls `callback(source.value)` if the source ended with a value."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        self.callback = callback

    def __call__(self, source: Any) -> None:
        if source.successful():
            self.callback(source.value)

    def __eq__(self, other: object) -> bool:
        return self.callback == getattr(other, "callback", other)

    def __hash__(self) -> int:
        return hash(self.callback)
