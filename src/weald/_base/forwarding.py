"""A stand-in for another object: `_weald_run` runs its operations.

Called by: weald.threadpool, whose Proxy runs them in native threads.

Invariants:
- Calls, items, lengths, iteration, contexts, writing an attribute, and reading one that runs code go through
  `_weald_run`.  Comparing, hashing and `repr` are done in place, and so is reading a plain attribute.
- Where an operation returns the object itself, the caller gets the stand-in: `cursor.execute()` returns the cursor
  that it was called on.
- Stand-ins among the arguments of a call are replaced with their objects.
"""

import operator
from collections.abc import Callable
from functools import update_wrapper
from types import MemberDescriptorType, ModuleType
from typing import Any, Self

_IN_PLACE = (MemberDescriptorType, classmethod)
_PLAIN_READS: tuple[Any, ...] = (object.__getattribute__, type.__getattribute__, ModuleType.__getattribute__)


class Forwarding:
    """Stands for `_weald_object`.  Derived classes define how a function is called and how its result is wrapped."""

    __slots__ = ("__weakref__", "_weald_object")
    _weald_object: Any

    def _weald_run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `function`, which is operation `name` of the object."""
        raise NotImplementedError

    def _weald_wrap(self, name: str, value: Any) -> Any:
        """Return what the caller gets for `value`, the result of operation or attribute `name`."""
        return value

    def _weald_do(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        plain = tuple(behind(argument) for argument in args)
        named = {key: behind(argument) for key, argument in kwargs.items()}
        result = self._weald_run(name, function, plain, named)
        return self if result is self._weald_object else self._weald_wrap(name, result)

    def __getattr__(self, name: str) -> Any:
        target = self._weald_object
        if _lies_there(target, name):
            value = getattr(target, name)
        else:
            value = self._weald_run(name, getattr, (target, name), {})
        if value is target:
            return self
        # `name` decides how a method's results are wrapped, not how the method itself is wrapped.
        wrapped = self._weald_wrap("" if callable(value) else name, value)
        if wrapped is not value or not callable(value) or isinstance(value, type):
            return wrapped

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._weald_do(name, value, *args, **kwargs)

        return update_wrapper(call, value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._weald_do("__setattr__", setattr, self._weald_object, name, value)

    def __delattr__(self, name: str) -> None:
        self._weald_do("__delattr__", delattr, self._weald_object, name)

    @property
    def __class__(self) -> Any:
        return type(self._weald_object)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        self._weald_object.__class__ = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._weald_do("__call__", self._weald_object, *args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._weald_do("__getitem__", operator.getitem, self._weald_object, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._weald_do("__setitem__", operator.setitem, self._weald_object, key, value)

    def __delitem__(self, key: Any) -> None:
        self._weald_do("__delitem__", operator.delitem, self._weald_object, key)

    def __contains__(self, item: Any) -> bool:
        return bool(self._weald_do("__contains__", operator.contains, self._weald_object, item))

    def __len__(self) -> int:
        return int(self._weald_do("__len__", len, self._weald_object))

    def __bool__(self) -> bool:
        return bool(self._weald_do("__bool__", bool, self._weald_object))

    def __iter__(self) -> "Forwarding":
        iterator = self._weald_do("__iter__", iter, self._weald_object)
        return iterator if isinstance(iterator, Forwarding) else self._weald_derive(iterator)

    def _weald_derive(self, target: Any) -> Self:
        """Return a stand-in for `target`, which this one's object has returned."""
        raise NotImplementedError

    def __next__(self) -> Any:
        return self._weald_do("__next__", next, self._weald_object)

    def __enter__(self) -> Any:
        return self._weald_do("__enter__", type(self._weald_object).__enter__, self._weald_object)

    def __exit__(self, *error: Any) -> Any:
        return self._weald_do("__exit__", type(self._weald_object).__exit__, self._weald_object, *error)

    def __eq__(self, other: object) -> bool:
        return bool(self._weald_object == behind(other))

    def __hash__(self) -> int:
        return hash(self._weald_object)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._weald_object!r}>"

    def __str__(self) -> str:
        return str(self._weald_object)

    def __dir__(self) -> list[str]:
        return dir(self._weald_object)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy or pickle the object, not the stand-in."""
        return self._weald_run("__reduce_ex__", self._weald_object.__reduce_ex__, (protocol,), {})


def behind(value: Any) -> Any:
    """The object that `value` stands for; `value` itself if it is no stand-in."""
    return value._weald_object if issubclass(type(value), Forwarding) else value


def _lies_there(target: Any, name: str) -> bool:
    """Whether reading `target.name` runs no code that might block: it is a method, a slot, or in a dict."""
    kind = type(target)
    if kind.__getattribute__ not in _PLAIN_READS:
        return False
    for cls in kind.__mro__:
        if name in cls.__dict__:
            found = cls.__dict__[name]
            return callable(found) or isinstance(found, _IN_PLACE) or not hasattr(type(found), "__get__")
    if isinstance(target, type):
        return any(name in cls.__dict__ for cls in target.__mro__)
    return name in getattr(target, "__dict__", ())
