"""Environment classes for WSGIServer, and a request's fields as a mapping.

Called by: server.py and handler.py; weald.pywsgi, which exports the classes.
"""

from collections.abc import Iterable
from http.client import HTTPMessage
from typing import Any, ClassVar

__all__ = ["Environ", "Headers", "SecureEnviron", "WSGISecureEnviron"]


class Environ(dict[str, Any]):
    """A request's environment; the base of classes for `WSGIServer.environ_class`."""

    __slots__ = ()

    def copy(self) -> "Environ":
        """Return a shallow copy of the same class."""
        return type(self)(self)

    def iteritems(self) -> Iterable[tuple[str, Any]]:
        """Return the items, by the name of Python 2."""
        return self.items()

    def __reduce_ex__(self, proto: Any) -> Any:
        return (dict, (), None, None, iter(self.items()))


class SecureEnviron(Environ):
    """An environment whose repr hides values, so that no log shows passwords and cookies.

    Attributes of the object choose what its repr shows; the class's `default_…` hold for those that it lacks:
    - `secure_repr` false: everything.
    - `whitelist_keys`: the keys whose values are shown.  Empty: only the number of keys is.
    - `print_masked_keys` true: the other keys are shown, with `<MASKED>` for their values.
    """

    default_secure_repr = True
    default_whitelist_keys: ClassVar[Any] = ()
    default_print_masked_keys = True

    __slots__ = ("print_masked_keys", "secure_repr", "whitelist_keys")

    def __getattr__(self, name: str) -> Any:
        if name in SecureEnviron.__slots__:
            return getattr(type(self), "default_" + name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        if not self.secure_repr:
            return dict.__repr__(self)
        shown = self.whitelist_keys
        if not shown:
            return f"<pywsgi.SecureEnviron dict (keys: {len(self)}) at {id(self)}>"
        safe = {
            key: self[key] if key in shown else "<MASKED>" for key in self if key in shown or self.print_masked_keys
        }
        hidden = len(self) - len(safe)
        return repr(safe) if not hidden else f"{repr(safe)[:-1]}, (hidden keys: {hidden})}}"

    __str__ = __repr__


class WSGISecureEnviron(SecureEnviron):
    """An environment whose repr shows the client's address and the Host, and nothing else."""

    default_whitelist_keys = ("REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST")
    default_print_masked_keys = False

    __slots__ = ()


class Headers(HTTPMessage):
    """A request's fields as `WSGIHandler.headers` shows them."""

    status = ""

    def getheader(self, name: str, default: Any = None) -> Any:
        """Return the field `name`, or `default`, by the name of Python 2, as the two below."""
        return self.get(name, default)

    @property
    def headers(self) -> list[str]:
        """The fields as lines."""
        return [f"{name}: {value}\r\n" for name, value in self.items()]

    @property
    def typeheader(self) -> Any:
        """The field Content-Type; None if there is none."""
        return self.get("content-type")
