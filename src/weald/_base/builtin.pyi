"""Builtins that call functions in Python."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["as_builtin", "as_builtins"]

_Function = TypeVar("_Function", bound=Callable[..., object])

def as_builtin(function: _Function, original: object = None) -> _Function:
    """Return a builtin of the function's name, parameters, module and docstring that calls it.

    `original` is called instead once the interpreter has taken the names from the function's module.
    """

def as_builtins(namespace: dict[str, Any], originals: ModuleType) -> None:
    """Wrap the functions of `__implements__` in a module's `namespace` whose originals are builtins.

    `originals` is the module that they replace.  Only the core has patched it so far.
    """
