"""The standard library's context variables: greenlets carry their own context, so nothing is replaced."""

from contextvars import Context, ContextVar, Token, copy_context

__all__ = ["Context", "ContextVar", "Token", "copy_context"]

__implements__: list[str] = []
