"""Builtins that call functions in Python."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["as_builtin", "as_builtins"]

_Function = TypeVar("_Function", bound=Callable[..., object])

def as_builtin(function: _Function) -> _Function:
    """Return a builtin of the function's name, parameters, module and docstring that calls it."""

def as_builtins(namespace: dict[str, Any], originals: ModuleType) -> None:
    """In a module's `namespace`, make each function of `__implements__` a builtin that is not in Python in `originals`.

    `originals` is the module that is replaced, not patched yet but by the core.
    """
