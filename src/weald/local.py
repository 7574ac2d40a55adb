"""local: an object whose attributes have their own values in each greenlet.

Called by: users; weald.compat, to show a greenlet's locals.
"""

from typing import TYPE_CHECKING, Any

from weald._base.names import more_names
from weald._core import living, local

__all__ = ["local"]


def all_local_dicts_for_greenlet(greenlet: Any) -> list[tuple[tuple[type, int], dict[str, Any]]]:
    """The attributes of `greenlet` in every local: ((the local's class, its id), attributes).  For debuggers."""
    found = []
    for each in living(local):
        space = local._peek(each, greenlet)  # not each._peek, which would make a space for the caller
        if space is not None:
            found.append(((type(each), id(each)), space))
    return found


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
