"""gevent.monkey.api: the part of weald.monkey that plug-ins use."""

from weald.monkey import get_original, patch_item, patch_module, remove_item

__all__ = ["get_original", "patch_item", "patch_module", "remove_item"]
