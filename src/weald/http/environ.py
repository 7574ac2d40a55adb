"""gevent.pywsgi's environment classes, log adapters and view of a request's fields.

Called by: weald.pywsgi, which exports them; handler.py.
"""

from collections.abc import Iterable, Iterator
from http.client import HTTPMessage
from typing import Any, ClassVar

__all__ = ["Environ", "Headers", "LoggingLogAdapter", "NoopLog", "SecureEnviron", "WSGISecureEnviron"]


class Environ(dict[str, Any]):
    """Base of classes for `WSGIServer.environ_class`."""

    __slots__ = ()

    def copy(self) -> "Environ":
        return type(self)(self)

    def iteritems(self) -> Iterable[tuple[str, Any]]:
        return self.items()

    def __reduce_ex__(self, proto: Any) -> Any:
        return (dict, (), None, None, iter(self.items()))


class SecureEnviron(Environ):
    """An environment whose repr hides values, so that no log shows passwords and cookies.

    An instance's, or the class's `default_…`, attributes say what is shown: everything unless `secure_repr`;
    of the keys in `whitelist_keys` the values; the other keys with `<MASKED>` if `print_masked_keys`.
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
    """Shows where a request came from and what for, and nothing else."""

    default_whitelist_keys = ("REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST")
    default_print_masked_keys = False

    __slots__ = ()


class Headers(HTTPMessage):
    """A request's fields as `WSGIHandler.headers` shows them."""

    status = ""

    def getheader(self, name: str, default: Any = None) -> Any:
        return self.get(name, default)

    @property
    def headers(self) -> list[str]:
        return [f"{name}: {value}\r\n" for name, value in self.items()]

    @property
    def typeheader(self) -> Any:
        return self.get("content-type")


class NoopLog:
    """A log that keeps nothing."""

    def write(self, *args: Any) -> None:
        pass

    def flush(self) -> None:
        pass

    def writelines(self, *args: Any) -> None:
        pass


class LoggingLogAdapter:
    """A logging.Logger as the file that the server's `log` and `error_log` are.  Other attributes are the logger's."""

    __slots__ = ("_level", "_logger")

    def __init__(self, logger: Any, level: int = 20) -> None:
        self._logger = logger
        self._level = level

    def write(self, msg: str) -> None:
        self._logger.log(self._level, msg.removesuffix("\n") if msg else msg)

    def flush(self) -> None:
        pass

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in LoggingLogAdapter.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._logger, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._logger, name)
