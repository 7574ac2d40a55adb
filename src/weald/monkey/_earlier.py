"""Objects of the replaced classes that were made before patching, and objects of classes derived from those.

Called by: weald.monkey.  Locks, and other objects that have to be replaced as a whole, are in _locks.py.

The standard library's classes that are written in Python are changed in place: their methods become weald's.  So
objects made before cooperate wherever they are held, even in a function's variable.

Invariant: a socket is changed (made non-blocking) only when it is used again, because other processes may share it.
"""

import gc
import weakref
from _socket import socket as _Base
from types import FunctionType
from typing import Any

from greenlet import getcurrent

from weald import _core
from weald._base.originals import get_original

__all__ = ["mend_children", "mend_locals", "mend_process_locks", "mend_selectors", "mend_sockets", "mend_ssl"]


def _objects_of(cls: type) -> list[Any]:
    # No issubclass(): an abstract class would compute and cache the answer for the class of every object.
    return [found for found in gc.get_objects() if cls in type(found).__mro__]


# ------------------------------------------------------------------ sockets


class _Adopted:
    """The attribute `_descriptor` of sockets that the standard library has made; it is made at its first use."""

    def __init__(self, base: Any) -> None:
        self._base = base
        # Keyed by the socket's id, because a class derived from it may not be hashable.
        self._found: dict[int, tuple[weakref.ref[Any], _core.Descriptor]] = {}

    def find(self, sock: Any) -> _core.Descriptor | None:
        of, descriptor = self._found.get(id(sock), (None, None))
        return descriptor if of is not None and of() is sock else None

    def forget(self, sock: Any) -> None:
        descriptor = self.find(sock)
        if descriptor is not None:
            del self._found[id(sock)]
            descriptor.close()

    def __get__(self, sock: Any, owner: type) -> Any:
        if sock is None:
            return self
        descriptor = self.find(sock)
        if descriptor is None:
            fd, timeout = sock.fileno(), self._base.gettimeout(sock)
            if fd >= 0:
                self._base.setblocking(sock, False)
            descriptor = _core.Descriptor(max(fd, 0), timeout)
            if fd < 0:
                descriptor.close()
            self.__set__(sock, descriptor)
        return descriptor

    def __set__(self, sock: Any, descriptor: _core.Descriptor) -> None:
        self._found[id(sock)] = weakref.ref(sock), descriptor


# Attributes of weald.socket.socket that concern only how it is made and ended.
_OF_MAKING = {"__init__", "__del__", "_real_close", "detach", "_descriptor"}


def mend_sockets() -> None:
    """Give sockets of the standard library's class, and of classes derived from it before, weald's methods."""
    from weald import socket as ours

    original: Any = get_original("socket", "socket")
    base: Any = _Base
    adopted = _Adopted(base)

    def finalize(sock: Any) -> None:
        adopted.forget(sock)
        base.__del__(sock)

    def close(sock: Any) -> None:
        adopted.forget(sock)
        base.close(sock)

    def detach(sock: Any) -> int:
        if adopted.find(sock) is None:
            return int(base.detach(sock))
        return ours.socket.detach(sock)

    original._descriptor = adopted
    original.__del__, original._real_close, original.detach = finalize, close, detach
    for name, value in vars(ours.socket).items():
        if name not in _OF_MAKING and (callable(value) or isinstance(value, property)):
            setattr(original, name, value)


def mend_ssl() -> None:
    """The same for TLS sockets."""
    import ssl as stdlib

    from weald import ssl as ours

    original: Any = get_original("ssl", "SSLSocket")
    create: Any = vars(original)["_create"].__func__
    # It looks the class up by its name, which by now is the name of weald's class.
    names = {**vars(stdlib), "SSLSocket": original}
    over_original = FunctionType(create.__code__, names, "_create", create.__defaults__, create.__closure__)
    over_original.__kwdefaults__ = create.__kwdefaults__
    original._create = classmethod(over_original)
    for name, value in vars(ours._CooperativeSSLSocket).items():
        if name not in ("__init__", "_create", "__doc__", "__module__") and not name.startswith("__"):
            setattr(original, name, value)


# ------------------------------------------------------------------ data of threads


def mend_locals() -> None:
    """Make objects of classes that were derived from `threading.local` before keep data for each greenlet."""
    for derived in get_original("_thread", "_local").__subclasses__():
        slots = [vars(cls)["__dict__"] for cls in derived.__mro__[:-2] if "__dict__" in vars(cls)]
        special = {"__getattribute__", "__setattr__", "__delattr__", "__eq__"}
        if slots and not special & {name for cls in derived.__mro__[:-2] for name in vars(cls)}:
            _Values(derived, slots[0])


class _Values:
    """The values that objects of one class have in each greenlet; the C code has them for native threads only.

    Before each access the object's dictionary is replaced by the greenlet's.  Main greenlets keep the one that the
    standard library has for the native thread.
    """

    def __init__(self, cls: Any, slot: Any) -> None:
        self._slot = slot
        self._native = cls.__mro__[-2].__getattribute__
        self._by_object: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

        def get(found: Any, name: str) -> Any:
            slot.__set__(found, self._of(found))
            return object.__getattribute__(found, name)

        def put(found: Any, name: str, value: Any) -> None:
            if (descriptor := _data_descriptor(type(found), name)) is not None:
                descriptor.__set__(found, value)
            else:
                self._of(found)[name] = value

        def delete(found: Any, name: str) -> None:
            if (descriptor := _data_descriptor(type(found), name)) is not None:
                descriptor.__delete__(found)
                return
            try:
                del self._of(found)[name]
            except KeyError:
                raise AttributeError(name) from None

        cls.__getattribute__, cls.__setattr__, cls.__delattr__ = get, put, delete

    def _of(self, found: Any) -> Any:
        if getcurrent().parent is None:
            return self._native(found, "__dict__")
        local: Any = self._by_object.get(found)
        if local is None:
            local = self._by_object[found] = _core.local()
        try:
            return local.values
        except AttributeError:
            values: dict[str, Any] = {}
            local.values = values
        if type(found).__init__ is not object.__init__:
            args, kwargs = self._arguments(found)
            type(found).__init__(found, *args, **kwargs)
        return values

    def _arguments(self, found: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that `found` was made with: the only tuple, and the only dict of names, in its C part."""
        held = gc.get_referents(found)
        attributes = self._slot.__get__(found)
        dicts = [one for one in held if type(one) is dict and one is not attributes]
        named = next((one for one in dicts if all(type(name) is str for name in one)), {})
        return next(one for one in held if type(one) is tuple), named


def _data_descriptor(cls: type, name: str) -> Any:
    """The data descriptor of attribute `name`, such as a property or a slot; None if there is none."""
    found = next((vars(owner)[name] for owner in cls.__mro__ if name in vars(owner)), None)
    return found if hasattr(type(found), "__set__") else None


# ------------------------------------------------------------------ the others


def mend_selectors() -> None:
    """Selectors, those of asyncio's loops too."""
    import selectors as stdlib
    from select import POLLIN, POLLOUT

    from weald import select, selectors

    epolls, polls = get_original("selectors", "EpollSelector"), get_original("selectors", "PollSelector")
    new_classes: dict[type, type] = {epolls: selectors.EpollSelector, polls: selectors.PollSelector}
    new_classes[get_original("selectors", "SelectSelector")] = selectors.SelectSelector
    for selector in _objects_of(stdlib.BaseSelector):
        if isinstance(selector, epolls) and not isinstance(selector._selector, select.epoll):
            if not selector._selector.closed:
                selector._selector = select.epoll.adopt(selector._selector)
        elif isinstance(selector, polls) and not isinstance(selector._selector, select.poll):
            selector._selector = poller = select.poll()
            for key in (selector.get_map() or {}).values():
                reads = POLLIN if key.events & stdlib.EVENT_READ else 0
                writes = POLLOUT if key.events & stdlib.EVENT_WRITE else 0
                poller.register(key.fd, reads | writes)
        if type(selector) in new_classes:
            selector.__class__ = new_classes[type(selector)]


def mend_children() -> None:
    """Children that run: their pipes stay what they are, but `communicate` and `wait` let others run."""
    from weald import subprocess as ours

    original = get_original("subprocess", "Popen")
    for child in _objects_of(original):
        if type(child) is original:
            child.__class__ = ours.Popen


def mend_process_locks(synchronize: Any) -> None:
    """Locks and other objects of multiprocessing that are built on its semaphores; for its module `synchronize`."""
    from weald.multiprocessing import SemLock

    for found in _objects_of(synchronize.SemLock):
        native = found._semlock
        if not isinstance(native, SemLock) and not (native.maxvalue == 1 and native._is_mine()):
            found._semlock = SemLock.adopt(native)
            found._make_methods()
            for condition in _objects_of(synchronize.Condition):
                if condition._lock is found:
                    condition._make_methods()
