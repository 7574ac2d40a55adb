"""The standard library's context variables: greenlets carry their own context, so nothing is replaced.

Called by: users, weald.monkey.
"""

from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING

from weald._base.names import more_names

__all__ = ["Context", "ContextVar", "Token", "copy_context"]

__implements__: list[str] = []
__imports__ = __all__


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
