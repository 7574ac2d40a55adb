"""gevent._hub_local: this thread's hub."""

from weald._core import get_hub, get_hub_if_exists
from weald.compat.hub import get_hub_class, set_default_hub_class, set_hub

__all__ = ["get_hub", "get_hub_class", "get_hub_if_exists", "get_hub_noargs", "set_default_hub_class", "set_hub"]

get_hub_noargs = get_hub
