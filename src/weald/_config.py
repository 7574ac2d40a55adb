"""Settings of the process: environment variables, until they are assigned to.

`weald.config` is the one instance.  A setting is read from its environment variable when it is first looked at;
rooms look when they need the value, so an assignment counts for whatever is made after it.  `WEALD_X` wins over
gevent's name of the same setting.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from weald import _core

__all__ = ["Config", "config"]


def _any(value: Any) -> Any:
    return value


def _bool(value: Any) -> bool:
    """1, true, on, yes; 0, false, off, no or nothing; anything but a str as Python has it."""
    if not isinstance(value, str):
        return bool(value)
    text = value.strip().lower()
    if text in ("1", "true", "on", "yes"):
        return True
    if text in ("0", "false", "off", "no", ""):
        return False
    raise ValueError("must be one of 1, true, on, yes, 0, false, off, no")


def _seconds(value: Any) -> float | None:
    if value is None or value == "":
        return None
    seconds = float(value)
    if seconds <= 0:
        raise ValueError("must be a positive number of seconds")
    return seconds


def _idle_seconds(value: Any) -> float:
    """Seconds, or -1 for no limit."""
    return float(value)


def _track(value: Any) -> bool:
    """As `_bool`, and have it done."""
    _core.track_spawns(tree=_bool(value))
    return _bool(value)


def _count(value: Any) -> int:
    return int(value)


_UNITS = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}


def _bytes(value: Any) -> int | None:
    """Bytes; a str may end with kb, mb or gb."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        unit = _UNITS.get(value[-2:].lower())
        size = int(value) if unit is None else int(value[:-2]) * unit
    else:
        size = int(value)
    if size <= 0:
        raise ValueError("must be a positive number of bytes")
    return size


def _words(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


class _Importable:
    """A callable, its "package.module.name", a short name for it, or several of these, the first that can be had."""

    def __init__(self, **names: str) -> None:
        self._names = names

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        tried = _words(value) if isinstance(value, str) else value
        missing = []
        if callable(tried):
            return tried
        for word in tried:
            if callable(word):
                return word
            try:
                found = self._find(str(word).strip())
            except ModuleNotFoundError as error:
                missing.append(f"{word} needs {error.name}, which is not installed (pip install weald[{word}])")
                continue
            if found is not None:
                return found
        if missing:
            raise ValueError("; ".join(missing))
        raise ValueError(f"must be one of {', '.join(self._names)}, a callable or where to import one from")

    def _find(self, word: str) -> Any:
        module, _, name = self._names.get(word, word).rpartition(".")
        if not module:
            return None
        try:
            return getattr(import_module(module), name, None)
        except ModuleNotFoundError as error:
            if word in self._names and error.name is not None and not error.name.startswith("weald"):
                raise  # an optional package
            return None
        except ImportError:
            return None


# gevent's names for the two backends.
_LOOPS = {"libev-cext": "libev", "libev-cffi": "libev", "libuv-cffi": "libuv"}


def _loop(value: Any) -> Any:
    """Name of a backend, or several: the first that this build has is used from now on."""
    if value is None or (isinstance(value, type) and issubclass(value, _core.EventLoop)):
        return None
    present = _core.loop_names()
    for word in _words(value):
        name = _LOOPS.get(str(word).strip(), str(word).strip())
        if name in present:
            _core.set_loop_factory(name)
            return None
    raise ValueError(f"must be one of {', '.join(present)}, which this build of weald has")


class _Setting(NamedTuple):
    default: Any
    convert: Callable[[Any], Any]
    variables: Sequence[str]  # of the environment; the first that is set counts
    meaning: str


def _names(*rest: str) -> tuple[str, ...]:
    return tuple(f"WEALD_{name}" for name in rest[:1]) + rest[1:]


_SETTINGS: dict[str, _Setting] = {
    "loop": _Setting(None, _loop, _names("LOOP", "GEVENT_LOOP"), "the backend of loops made from now on"),
    "resolver": _Setting(
        "thread",
        _Importable(
            thread="weald.resolver.thread.Resolver",
            dnspython="weald.resolver.dnspython.Resolver",
            ares="weald.resolver.ares.Resolver",
            block="weald.resolver.blocking.Resolver",
        ),
        _names("RESOLVER", "GEVENT_RESOLVER"),
        "who looks host names up",
    ),
    "threadpool": _Setting(
        "weald.threadpool.ThreadPool",
        _Importable(),
        _names("THREADPOOL", "GEVENT_THREADPOOL"),
        "the class of a hub's thread pool",
    ),
    "threadpool_size": _Setting(
        10, _count, _names("THREADPOOL_SIZE", "GEVENT_THREADPOOL_SIZE"), "the most threads of a hub's pool"
    ),
    "threadpool_idle_task_timeout": _Setting(
        -1,
        _idle_seconds,
        _names("THREADPOOL_IDLE_TIMEOUT", "GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT"),
        "seconds after which an idle thread of the pool ends; -1: never",
    ),
    "fileobject": _Setting(
        None,
        _Importable(
            posix="weald.fileobject.FileObjectPosix",
            thread="weald.fileobject.FileObjectThread",
            block="weald.fileobject.FileObjectBlock",
        ),
        _names("FILE", "GEVENT_FILE"),
        "what weald.fileobject.FileObject is; without it, what fits the file",
    ),
    "track_greenlet_tree": _Setting(
        True,
        _track,
        _names("TRACK_GREENLET_TREE", "GEVENT_TRACK_GREENLET_TREE"),
        "whether greenlets know who spawned them",
    ),
    "monitor_thread": _Setting(
        False,
        _bool,
        _names("MONITOR_THREAD", "GEVENT_MONITOR_THREAD_ENABLE"),
        "whether a native thread watches each hub",
    ),
    "max_blocking_time": _Setting(
        0.1,
        _seconds,
        _names("MAX_BLOCKING_TIME", "GEVENT_MAX_BLOCKING_TIME"),
        "seconds that a greenlet may run without a switch before that thread reports it",
    ),
    "print_blocking_reports": _Setting(
        True,
        _bool,
        _names("PRINT_BLOCKING_REPORTS", "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS"),
        "whether its reports are printed",
    ),
    "memory_monitor_period": _Setting(
        5, _seconds, _names("MONITOR_MEMORY_PERIOD", "GEVENT_MONITOR_MEMORY_PERIOD"), "seconds between looks at memory"
    ),
    "max_memory_usage": _Setting(
        None, _bytes, _names("MONITOR_MEMORY_MAX", "GEVENT_MONITOR_MEMORY_MAX"), "bytes above which that is reported"
    ),
    "format_context": _Setting(
        "pprint.saferepr",
        _Importable(),
        _names("FORMAT_CONTEXT", "GEVENT_FORMAT_CONTEXT"),
        "how the context of an uncaught exception is written",
    ),
    "resolver_nameservers": _Setting(
        None,
        _words,
        _names("RESOLVER_NAMESERVERS", "GEVENT_RESOLVER_NAMESERVERS"),
        "addresses of name servers, for the resolvers that ask them themselves",
    ),
    "resolver_timeout": _Setting(
        None, _seconds, _names("RESOLVER_TIMEOUT", "GEVENT_RESOLVER_TIMEOUT"), "seconds such a look-up may take"
    ),
    "ares_servers": _Setting(None, _words, _names("ARES_SERVERS", "GEVENTARES_SERVERS"), "c-ares: as the above"),
    "ares_timeout": _Setting(None, _any, _names("ARES_TIMEOUT", "GEVENTARES_TIMEOUT"), "c-ares: as the above"),
    "ares_tries": _Setting(None, _any, _names("ARES_TRIES", "GEVENTARES_TRIES"), "c-ares"),
    "ares_ndots": _Setting(None, _any, _names("ARES_NDOTS", "GEVENTARES_NDOTS"), "c-ares"),
    "ares_flags": _Setting(None, _any, _names("ARES_FLAGS", "GEVENTARES_FLAGS"), "c-ares"),
    "ares_udp_port": _Setting(None, _any, _names("ARES_UDP_PORT", "GEVENTARES_UDP_PORT"), "c-ares"),
    "ares_tcp_port": _Setting(None, _any, _names("ARES_TCP_PORT", "GEVENTARES_TCP_PORT"), "c-ares"),
    "happy_eyeballs_delay": _Setting(
        None,
        _seconds,
        _names("HAPPY_EYEBALLS_DELAY"),
        "seconds after which create_connection tries the next address besides (RFC 8305 wants 0.25); None: it does not",
    ),
    # Taken and kept, without effect here.
    "libev_backend": _Setting(None, _any, _names("LIBEV_BACKEND", "GEVENT_BACKEND"), "without effect: epoll is used"),
    "disable_watch_children": _Setting(
        False, _bool, _names("NOWAITPID", "GEVENT_NOWAITPID"), "without effect: weald never takes a child's status"
    ),
    "trace_malloc": _Setting(False, _any, ("PYTHONTRACEMALLOC",), "without effect"),
}


def validate_bool(value: Any) -> bool:
    """Text from the environment as a bool; ValueError if it is neither."""
    return _bool(value)


class Config:
    """The settings, as attributes.  `print_help()` lists them, with their environment variables.

    Assigning, and looking at one whose variable says nonsense, raises ValueError; an unknown name AttributeError.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.__dict__["_environ"] = environ
        for name in ("loop", "track_greenlet_tree"):  # what has to be done, not just known
            if any(environ.get(variable) for variable in _SETTINGS[name].variables):
                self.__dict__[name] = self._read(name)

    @property
    def loop(self) -> Any:
        """The class of loops.  Set to a backend's name, which the hubs made from then on use."""
        return import_module("weald.compat.core").loop

    def __getattr__(self, name: str) -> Any:
        if name not in _SETTINGS:
            raise AttributeError(f"weald has no setting {name!r}; there are: {', '.join(_SETTINGS)}")
        value = self.__dict__[name] = self._read(name)
        return value

    def _read(self, name: str) -> Any:
        setting = _SETTINGS[name]
        for variable in setting.variables:
            text = self.__dict__["_environ"].get(variable)
            if text:
                try:
                    return setting.convert(text)
                except ValueError as error:
                    raise ValueError(f"environment variable {variable} is {text!r}: {error}") from None
        return setting.convert(setting.default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _SETTINGS:
            raise AttributeError(f"weald has no setting {name!r}; there are: {', '.join(_SETTINGS)}")
        try:
            self.__dict__[name] = _SETTINGS[name].convert(value)
        except ValueError as error:
            raise ValueError(f"weald.config.{name} cannot be {value!r}: {error}") from None

    def set(self, name: str, value: Any) -> None:
        """The same as assigning to the attribute `name`."""
        setattr(self, name, value)

    @property
    def settings(self) -> list[str]:
        return list(_SETTINGS)

    def __dir__(self) -> list[str]:
        return list(_SETTINGS)

    def print_help(self) -> None:
        """List every setting on standard output."""
        for name, setting in _SETTINGS.items():
            variables = ", ".join(setting.variables)
            sys.stdout.write(f"{name}: {setting.meaning}\n    {variables}; now {getattr(self, name)!r}\n")


config = Config()

if __name__ == "__main__":
    config.print_help()
