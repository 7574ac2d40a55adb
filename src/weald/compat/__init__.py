"""Everything that exists only for gevent's names.

Called by: weald/__init__.py, for `install_as_gevent`; weald/__main__.py, for its commands.

`_door.py` is the way in: it fills the hooks that weald's other modules offer, finds `gevent.x`, and finds the modules
here as `weald.x`, the same objects.  No other module of weald imports anything from here.
"""

from weald._base.names import more_names

__all__: list[str] = []

__getattr__ = more_names(__name__)  # gevent's top-level names
