"""The part of weald.monkey that plug-ins use: replacing names, and getting the originals.

Called by: users.
"""

from weald.monkey import get_original, patch_item, patch_module, remove_item

__all__ = ["get_original", "patch_item", "patch_module", "remove_item"]
