"""local: attributes that each greenlet sees its own values of."""

from weald._core import local

__all__ = ["local"]
