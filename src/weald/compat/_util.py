"""gevent._util: helpers that programs have borrowed from gevent.

Called by: users, as gevent._util; hub.py, _tracer.py.
"""

import time
from collections.abc import Callable, Iterable
from functools import WRAPPER_ASSIGNMENTS, WRAPPER_UPDATES, update_wrapper
from typing import TYPE_CHECKING, Any

from weald._base.names import more_names

__all__ = ["Lazy", "LazyOnClass", "copy_globals", "gmctime", "readproperty", "update_wrapper"]

_NONE: Any = object()


class Lazy:
    """An attribute computed when first looked at, then kept on the instance."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self.data = func, func.__name__
        update_wrapper(self, func)  # type: ignore[arg-type]

    def __get__(self, inst: Any, class_: type) -> Any:
        if inst is None:
            return self
        function, name = self.data
        value = inst.__dict__[name] = function(inst)
        return value


class LazyOnClass:
    """An attribute computed when first looked at through an instance, then kept on the class."""

    @classmethod
    def lazy(cls, cls_dict: dict[str, Any], func: Callable[[Any], Any]) -> None:
        """Put such an attribute into a class's dict, under the function's name."""
        cls_dict[func.__name__] = cls(func)

    def __init__(self, func: Callable[[Any], Any], name: str | None = None) -> None:
        self.name = name or func.__name__
        self.func = func

    def __get__(self, inst: Any, class_: type) -> Any:
        if inst is None:
            return self
        value = self.func(inst)
        setattr(class_, self.name, value)
        return value


class readproperty:
    """A property that may be assigned to, which replaces it on the instance."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self.func = func
        update_wrapper(self, func)  # type: ignore[arg-type]

    def __get__(self, inst: Any, class_: type) -> Any:
        return self if inst is None else self.func(inst)


def copy_globals(
    source: Any,
    globs: dict[str, Any],
    only_names: Iterable[str] | None = None,
    ignore_missing_names: bool = False,
    names_to_ignore: Iterable[str] = (),
    dunder_names_to_keep: Iterable[str] = ("__implements__", "__all__", "__imports__"),
    cleanup_globs: bool = True,
) -> list[str]:
    """Copy names of module `source` into `globs`, all public ones unless `only_names` says which; the names copied."""
    keep, ignore = set(dunder_names_to_keep), set(names_to_ignore)
    if only_names is not None:
        names = [name for name in only_names if not ignore_missing_names or hasattr(source, name)]
    else:
        names = list(vars(source))
    copied = []
    for name in names:
        if name in ignore or (name.startswith("__") and name not in keep):
            continue
        globs[name] = getattr(source, name)
        copied.append(name)
    if cleanup_globs:
        globs.pop("copy_globals", None)
    return copied


def gmctime() -> str:
    """The time, UTC, as ISO 8601 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._util")
