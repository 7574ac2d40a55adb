"""Settings of the process: each comes from its environment variable until a program assigns to it.

Called by: weald (`weald.config`), weald.fileobject, weald.socket, weald.threadpool, weald.resolver; weald.compat, which
adds settings and variables.

Invariants:
- A setting is read from the environment at its first use; those with `at_once` are read at the start.
- Modules read a setting when they need it, so an assignment affects all objects that are made later.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from weald import _core

__all__ = [
    "Config",
    "Setting",
    "add_settings",
    "add_variables",
    "anything",
    "as_bool",
    "as_bytes",
    "as_importable",
    "as_number",
    "as_seconds",
    "config",
    "loop_names",
    "set_loop_class",
]

# -------------------------------------------------------------------- converters, which raise ValueError


def anything(value: Any) -> Any:
    """Return `value`."""
    return value


def as_bool(value: Any) -> bool:
    """Return True for "1", "true", "on", "yes", False for "0", "false", "off", "no" and ""; bool() of other objects."""
    if not isinstance(value, str):
        return bool(value)
    text = value.strip().lower()
    if text in ("1", "true", "on", "yes"):
        return True
    if text in ("0", "false", "off", "no", ""):
        return False
    raise ValueError("must be one of 1, true, on, yes, 0, false, off, no")


def as_seconds(value: Any) -> float | None:
    """Return a positive number; None for None and ""."""
    if value is None or value == "":
        return None
    seconds = float(value)
    if seconds <= 0:
        raise ValueError("must be a positive number of seconds")
    return seconds


def as_number(value: Any) -> int | None:
    """Return an integer that is not negative; None for None and ""."""
    if value is None or value == "":
        return None
    number = int(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


_UNITS = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}


def as_bytes(value: Any) -> int | None:
    """Return a positive number of bytes, None for None and ""; a str may end with kb, mb or gb."""
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


def as_importable(**names: str) -> Callable[[Any], Any]:
    """Return a converter to a callable, from one of `names`, from "package.module.name", or from the callable itself.

    `names` maps short names to "package.module.name".  Several words may be given, as a list or with commas between
    them: the first that can be imported counts.
    """

    choices = f"one of {', '.join(names)}, a" if names else "a"
    usage = f"must be {choices} callable or where to import one from"

    def convert(value: Any) -> Any:
        if callable(value):
            return value
        if not isinstance(value, Iterable):
            raise ValueError(usage)
        missing = []
        for word in _words(value):
            if callable(word):
                return word
            try:
                found = _imported(str(word).strip(), names)
            except ImportError as error:
                if isinstance(error, ModuleNotFoundError) and word in names:
                    missing.append(f"{word} needs {error.name}, which is not installed (pip install weald[{word}])")
                else:
                    missing.append(f"{word} cannot be imported: {error}")
                continue
            if found is not None:
                return found
        if missing:
            raise ValueError("; ".join(missing))
        raise ValueError(usage)

    return convert


def _imported(word: str, names: Mapping[str, str]) -> Any:
    """Return what `word` names, None if there is no such thing.

    Raises ImportError if what it names is there and cannot be imported, say because a package is not installed.
    """
    module, _, name = names.get(word, word).rpartition(".")
    if not module:
        return None
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if word not in names and f"{module}.".startswith(f"{error.name}."):
            return None
        raise


loop_names: dict[str, str] = {}  # other names of backends, to weald's


def _loop(value: Any) -> None:
    """Use the first of these backends that this build has, or loops of this class, from now on."""
    if value is None:
        return
    if isinstance(value, type) and issubclass(value, _core.EventLoop):
        _core.set_event_loop_class(value)
        set_loop_class(lambda: value)
        return
    present = _core.loop_names()
    for word in _words(value):
        name = str(word).strip()
        name = loop_names.get(name, name)
        if name in present:
            _core.set_loop_factory(name)
            return
    raise ValueError(f"must be one of the backends of this build: {', '.join(present)}")


def _track(value: Any) -> bool:
    _core.track_spawns(tree=as_bool(value))
    return as_bool(value)


def _file_class(value: Any) -> Any:
    """Return the class of file objects; if `weald.fileobject` is imported already, it uses it from now on."""
    found = None if value is None else _to_file_class(value)
    module: Any = sys.modules.get("weald.fileobject")
    if found is not None and module is not None:
        module.FileObject = found
    return found


_to_file_class = as_importable(
    posix="weald.fileobject.FileObjectPosix",
    thread="weald.fileobject.FileObjectThread",
    block="weald.fileobject.FileObjectBlock",
)


# -------------------------------------------------------------------- the settings


class Setting(NamedTuple):
    """One setting; the environment variable `variable` gives its value as text."""

    default: Any
    convert: Callable[[Any], Any]
    variable: str
    meaning: str
    at_once: bool = False  # the converter has an effect, which must not wait for the first use


_settings: dict[str, Setting] = {
    "loop": Setting(None, _loop, "WEALD_LOOP", "the backend of loops made from now on", at_once=True),
    "resolver": Setting(
        "thread",
        as_importable(
            thread="weald.resolver.thread.Resolver",
            dnspython="weald.resolver.dnspython.Resolver",
            ares="weald.resolver.ares.Resolver",
            block="weald.resolver.blocking.Resolver",
        ),
        "WEALD_RESOLVER",
        "the class that looks up host names",
    ),
    "threadpool": Setting(
        "weald.threadpool.ThreadPool", as_importable(), "WEALD_THREADPOOL", "the class of a hub's thread pool"
    ),
    "threadpool_size": Setting(10, int, "WEALD_THREADPOOL_SIZE", "the most threads of a hub's pool"),
    "threadpool_idle_task_timeout": Setting(
        -1, float, "WEALD_THREADPOOL_IDLE_TIMEOUT", "seconds after which an idle thread of the pool ends; -1: never"
    ),
    "fileobject": Setting(
        None,
        _file_class,
        "WEALD_FILE",
        "the class that weald.fileobject.FileObject makes; None: the one that fits the file",
    ),
    "track_greenlet_tree": Setting(
        True, _track, "WEALD_TRACK_GREENLET_TREE", "whether greenlets know who spawned them", at_once=True
    ),
    "resolver_nameservers": Setting(
        None,
        _words,
        "WEALD_RESOLVER_NAMESERVERS",
        "addresses of name servers, for the resolvers dnspython and ares",
    ),
    "resolver_timeout": Setting(
        None, as_seconds, "WEALD_RESOLVER_TIMEOUT", "seconds a look-up by dnspython or ares may take"
    ),
    "ares_servers": Setting(None, _words, "WEALD_ARES_SERVERS", "c-ares: as resolver_nameservers"),
    "ares_timeout": Setting(None, as_seconds, "WEALD_ARES_TIMEOUT", "c-ares: as resolver_timeout"),
    "ares_tries": Setting(None, as_number, "WEALD_ARES_TRIES", "c-ares: how often a server is asked"),
    "ares_ndots": Setting(None, as_number, "WEALD_ARES_NDOTS", "c-ares: names with fewer dots are searched for first"),
    "ares_flags": Setting(None, as_number, "WEALD_ARES_FLAGS", "c-ares: its ARES_FLAG_ numbers, added up"),
    "ares_udp_port": Setting(None, as_number, "WEALD_ARES_UDP_PORT", "c-ares: the servers' port for UDP"),
    "ares_tcp_port": Setting(None, as_number, "WEALD_ARES_TCP_PORT", "c-ares: the servers' port for TCP"),
    "happy_eyeballs_delay": Setting(
        None,
        as_seconds,
        "WEALD_HAPPY_EYEBALLS_DELAY",
        "seconds after which create_connection tries the next address as well (RFC 8305: 0.25); None: never",
    ),
}

_more_variables: dict[str, Sequence[str]] = {}  # of a setting, read where its own variable is not set


def _variables(name: str) -> Sequence[str]:
    """The environment variables of a setting; the first that is set counts."""
    return (_settings[name].variable, *_more_variables.get(name, ()))


def add_settings(settings: Mapping[str, Setting]) -> None:
    """Add these settings to `config`."""
    _settings.update(settings)


def add_variables(variables: Mapping[str, str]) -> None:
    """Let the settings (keys) be read from these environment variables as well, if their own variables are not set."""
    for name, variable in variables.items():
        _more_variables[name] = (*_more_variables.get(name, ()), variable)
    config._read_at_once()


def _find_loop_class() -> type[_core.EventLoop]:
    return _core.EventLoop


def set_loop_class(find: Callable[[], type[_core.EventLoop]]) -> None:
    """Make `config.loop` return what `find()` returns."""
    global _find_loop_class
    _find_loop_class = find


class Config:
    """The settings, as attributes.  `print_help()` lists them, with their environment variables.

    Assigning an invalid value raises ValueError; so does reading a setting whose environment variable is invalid.
    An unknown name raises AttributeError.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.__dict__["_environ"] = environ
        self._read_at_once()

    def _read_at_once(self) -> None:
        for name, setting in _settings.items():
            if setting.at_once and name not in self.__dict__:
                if any(self._environ.get(variable) for variable in _variables(name)):
                    self.__dict__[name] = self._read(name)

    @property
    def loop(self) -> Any:
        """The class of loops.  Set to a backend's name, which the hubs made from then on use."""
        return _find_loop_class()

    def __getattr__(self, name: str) -> Any:
        self._check(name)
        value = self.__dict__[name] = self._read(name)
        return value

    def _read(self, name: str) -> Any:
        convert = _settings[name].convert
        for variable in _variables(name):
            text = self._environ.get(variable)
            if text:
                try:
                    return convert(text)
                except ValueError as error:
                    raise ValueError(f"environment variable {variable} is {text!r}: {error}") from None
        return convert(_settings[name].default)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check(name)
        try:
            self.__dict__[name] = _settings[name].convert(value)
        except ValueError as error:
            raise ValueError(f"weald.config.{name} cannot be {value!r}: {error}") from None

    @staticmethod
    def _check(name: str) -> None:
        if name not in _settings:
            raise AttributeError(f"weald has no setting {name!r}; there are: {', '.join(_settings)}")

    def set(self, name: str, value: Any) -> None:
        """The same as assigning to the attribute `name`."""
        setattr(self, name, value)

    @property
    def settings(self) -> list[str]:
        """The names of all settings."""
        return list(_settings)

    def __dir__(self) -> list[str]:
        return list(_settings)

    def print_help(self) -> None:
        """List every setting on standard output."""
        for name, setting in _settings.items():
            variables = ", ".join(_variables(name))
            sys.stdout.write(f"{name}: {setting.meaning}\n    {variables}; now {getattr(self, name)!r}\n")


config = Config()
