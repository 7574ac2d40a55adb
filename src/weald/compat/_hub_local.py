"""gevent._hub_local: this thread's hub.

Called by: users, as gevent._hub_local; _names.py.
"""

from typing import TYPE_CHECKING, Any

from weald._base.names import more_names
from weald._core import get_hub, get_hub_if_exists, set_hub
from weald.compat.hub import get_hub_class, set_default_hub_class

__all__ = [
    "get_hub",
    "get_hub_class",
    "get_hub_if_exists",
    "get_hub_noargs",
    "get_loop",
    "set_default_hub_class",
    "set_hub",
]

get_hub_noargs = get_hub


def get_loop() -> Any:
    """This thread's loop."""
    return get_hub().loop


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._hub_local")
