"""The options of `weald serve`, and loading an application.

Called by: command.py, supervisor.py, tls.py, worker.py, wsgi.py, asgi.py.
"""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import Any

from weald.http.fields import field_name, field_value
from weald.http.forwarded import Trusted
from weald.http.interface import interface_of
from weald.http.limits import Limits
from weald.serve.errorlog import LEVELS
from weald.serve.errors import ConfigError
from weald.serve.listeners import parse_bind
from weald.serve.process import find_ids, usable_cores
from weald.serve.static import parse_static
from weald.serve.syslog import FACILITIES, parse_syslog

__all__ = [
    "Config",
    "ConfigError",
    "load_all",
    "load_application",
    "load_module",
    "parse_limits",
    "parse_websocket_limits",
]

_WEBSOCKET = "websocket_"  # the prefix of the names of WebSockets' limits
_MAY_BE_NONE = ("fields", "body", "trailers", "body_grace", "linger_timeout", "discard")
_MOST = (1 << 31) - 1  # of what the system or HTTP/2 takes as a number of 32 bits
_LARGE = ("body", "discard", "requests", "websocket_max_message")  # limits that may be larger
_MAY_BE_EMPTY = ("root_path", "forwarded_allow_ips", "proxy_protocol", "methods")  # the last has a sentence of its own
_SPELLINGS = {"binds": "bind", "mounts": "mount", "directory": "app-dir", "headers": "header", "pid_file": "pid"}
INTERFACES = ("auto", "wsgi", "asgi")
LIFESPANS = ("auto", "on", "off")
LOG_FORMATS = ("common", "combined", "json", "off")


@dataclass(frozen=True)
class Config:
    """The options of `weald serve`; times in seconds, memory in bytes."""

    application: str
    interface: str = "auto"  # or "wsgi", "asgi"
    lifespan: str = "auto"  # or "on", "off"
    mounts: tuple[str, ...] = ()  # "/PREFIX=MODULE:APP": further applications
    binds: tuple[str, ...] = ("127.0.0.1:8000",)
    workers: int = field(default_factory=usable_cores)
    directory: str = "."
    patch: bool = True
    certfile: str | None = None
    keyfile: str | None = None
    key_password_file: str | None = None  # its first line
    sni: tuple[str, ...] = ()  # NAME=CERTFILE[:KEYFILE]
    client_ca: str | None = None  # asks for client certificates
    client_cert: str = "required"  # or "optional"
    tls_min: str = "1.2"
    ciphers: str | None = None
    backlog: int = 2048
    socket_mode: str = "666"  # octal
    root_path: str = ""  # SCRIPT_NAME
    forwarded_allow_ips: str | None = None  # see weald.http.forwarded
    proxy_protocol: str | None = None  # peers that begin with a PROXY header
    headers: tuple[str, ...] = ()  # "NAME: VALUE", added to responses that have none of that name
    hooks: str | None = None  # a module
    error_log: str = "-"  # "-" is standard error as it is
    reload: bool = False  # when a file of the application has changed
    preload: bool = False  # load the application in the parent process, whose memory the workers share
    threads: int = 0  # for WSGI applications, in each worker; 0: they run in greenlets
    user: str | None = None
    group: str | None = None
    umask: str | None = None  # octal
    pid_file: str | None = None
    log_level: str = "info"  # the least important lines in the error log: info, warning or error
    error_log_format: str = "text"  # or "json"
    log_syslog: str | None = None  # "unix:PATH" or "udp:HOST:PORT", in place of standard error and output
    log_syslog_facility: str = "daemon"
    log_syslog_tag: str = "weald"
    access_log: str = "off"  # one of LOG_FORMATS, or a format of one's own: see accesslog.line_maker
    access_log_file: str = "-"  # "-" is standard output
    metrics: str | None = None  # where to serve /metrics
    graceful_timeout: float = 30.0  # for what is under way when a worker stops
    boot_timeout: float = 300.0  # for a worker to load the application; 0 for ever
    timeout: float = 60.0  # a worker whose loop is blocked for longer is killed; 0 for never
    max_requests: int = 0  # a worker that has served so many is replaced; 0 for never
    max_requests_jitter: int = 0  # and up to so many more, so that not all go at once
    max_memory: int = 0  # a worker whose resident memory is larger is replaced; 0 for never
    http2: bool = True  # for clients that ask for it; needs h2
    limits: Limits = field(default_factory=Limits)
    websocket: dict[str, Any] = field(default_factory=dict)  # changes to weald.http.websocket.Options
    static: tuple[str, ...] = ()  # "/prefix=DIR"
    static_max_age: int = 60  # seconds that clients may keep a file without asking
    methods: str | None = None  # those that the application gets, with commas; None for all

    def check(self) -> None:
        """Raises ConfigError."""
        self.check_texts()
        if self.workers < 1:
            raise ConfigError("at least one worker is needed")
        for name, value in (("--socket-mode", self.socket_mode), ("--umask", self.umask)):
            if value is not None and not re.fullmatch("0?[0-7]{1,3}", value):
                raise ConfigError(f"{name} must be octal, like 660, not {value!r}")
        if self.preload and self.reload:
            raise ConfigError("--preload keeps the application that was loaded at the start: it cannot --reload")
        if not 1 <= self.backlog <= _MOST:
            raise ConfigError(f"--backlog must be a number from 1 to {_MOST}")
        if self.root_path and not re.fullmatch(r"(/[^/?#\s]+)+", self.root_path):
            raise ConfigError(f"--root-path must be like /prefix, without a slash at its end, not {self.root_path!r}")
        for name, value, known in (
            ("--interface", self.interface, INTERFACES),
            ("--lifespan", self.lifespan, LIFESPANS),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        for mount in self.mounts:
            if not re.fullmatch(r"(/[^/?#=\s]+)+=.+", mount):
                raise ConfigError(f"--mount must be like /prefix=MODULE:APP, not {mount!r}")
        find_ids(self.user, self.group)
        for name, value in (("forwarded-allow-ips", self.forwarded_allow_ips), ("proxy-protocol", self.proxy_protocol)):
            try:
                Trusted(value or "")
            except ValueError as error:
                raise ConfigError(f"--{name}: {error}") from None
        self.fields()
        self.allowed_methods()
        self.check_static()
        if (self.sni or self.client_ca or self.ciphers) and not self.certfile:
            raise ConfigError("--sni, --client-ca and --ciphers need --certfile")
        self.check_logs()
        for name in (
            "graceful_timeout",
            "boot_timeout",
            "timeout",
            "max_requests",
            "max_requests_jitter",
            "max_memory",
            "static_max_age",
            "threads",
        ):
            if not 0 <= getattr(self, name) < 1e9 and not (name == "max_memory" and getattr(self, name) >= 0):
                raise ConfigError(f"--{name.replace('_', '-')} must be a number from 0 on")
        if 0 < self.timeout < 2:  # a worker shows once a second that it lives
            raise ConfigError("--timeout must be at least 2 seconds, or 0 for no limit")
        if self.keyfile and not self.certfile:
            raise ConfigError("a key needs a certificate")
        if not os.path.isdir(self.directory):
            raise ConfigError(f"there is no folder {self.directory}")
        for bind in (*self.binds, *([self.metrics] if self.metrics else [])):
            parse_bind(bind)

    def check_texts(self) -> None:
        """Raise ConfigError for options that are empty: a variable that is not set must not leave TLS, say, out."""
        for item in fields(self):
            value = getattr(self, item.name)
            texts = value if isinstance(value, tuple) else (value,)
            option = _SPELLINGS.get(item.name, item.name.replace("_", "-"))
            if "" in texts and item.name not in _MAY_BE_EMPTY:
                raise ConfigError(f"--{option} is empty")
            if any(isinstance(text, str) and "\0" in text for text in texts):
                raise ConfigError(f"--{option} has a NUL character in it")

    def fields(self) -> list[tuple[str, str]]:
        """Names and values of `headers`.  Raises ConfigError."""
        found = []
        for header in self.headers:
            name, colon, value = header.partition(":")
            try:
                if not colon:
                    raise ValueError
                field_value(name, value.strip())
                field_name(name)
            except (ValueError, TypeError, UnicodeError):
                raise ConfigError(f"--header must be like 'X-Frame-Options: DENY', not {header!r}") from None
            found.append((name, value.strip()))
        return found

    def check_logs(self) -> None:
        """Raises ConfigError."""
        if self.access_log not in LOG_FORMATS and "%(" not in self.access_log:
            formats = ", ".join(LOG_FORMATS)
            raise ConfigError(f"no access log format {self.access_log!r}; there are: {formats}, and text with %(h)s …")
        if self.log_syslog is not None:
            parse_syslog(self.log_syslog)
        if self.log_syslog_facility not in FACILITIES:
            raise ConfigError(f"--log-syslog-facility is one of {', '.join(FACILITIES)}")
        if not re.fullmatch(r"[\w.-]{1,32}", self.log_syslog_tag, re.ASCII):
            raise ConfigError(f"--log-syslog-tag must be a name of up to 32 letters, not {self.log_syslog_tag!r}")
        if self.log_level not in LEVELS or self.error_log_format not in ("text", "json"):
            raise ConfigError(f"--log-level is one of {', '.join(LEVELS)}, --error-log-format text or json")

    def check_static(self) -> None:
        """Raises ConfigError."""
        taken = {mount.partition("=")[0] for mount in self.mounts}
        for prefix, folder in map(parse_static, self.static):
            if prefix in taken:
                raise ConfigError(f"--static: {prefix} is taken already")
            taken.add(prefix)
            if not os.path.isdir(folder):
                raise ConfigError(f"--static: there is no folder {folder}")

    def allowed_methods(self) -> frozenset[str]:
        """The names in `methods`; empty for all.  Raises ConfigError."""
        names = [name.strip() for name in (self.methods or "").split(",") if name.strip()]
        if self.methods is not None and not names:
            raise ConfigError("--methods needs names, like GET,HEAD,POST")
        for name in names:
            if not re.fullmatch("[A-Z]+(-[A-Z]+)*", name):
                raise ConfigError(f"--methods: {name!r} is no method; they are written GET, POST and so on")
        return frozenset(names)

    def refusal(self) -> tuple[str, bytes]:
        """The Allow field and the body of a response to a method that is not allowed.  Raises ConfigError."""
        names = ", ".join(sorted(self.allowed_methods()))
        return names, f"There are: {names}\n".encode()

    def settled(self) -> "Config":
        """Return the same options with absolute paths: a worker changes to the application's folder."""
        names = [
            name
            for name in ("directory", "certfile", "keyfile", "key_password_file", "client_ca", "pid_file")
            if getattr(self, name)
        ]
        names += [name for name in ("access_log_file", "error_log") if getattr(self, name) != "-"]
        sni = []
        for setting in self.sni:
            name, _, files = setting.partition("=")
            sni.append(name + "=" + ":".join(os.path.abspath(path) if path else "" for path in files.split(":")))
        paths = {name: os.path.abspath(getattr(self, name)) for name in names}
        static = tuple(f"{prefix}={os.path.abspath(folder)}" for prefix, folder in map(parse_static, self.static))
        return replace(self, sni=tuple(sni), static=static, **paths)


def parse_limits(settings: Iterable[str]) -> Limits:
    """Return Limits, changed by the "name=number" settings, except those of WebSockets.  Raises ConfigError."""
    kinds: dict[str, Any] = {item.name: type(item.default) for item in fields(Limits)}
    kinds |= dict.fromkeys(_websocket_kinds())
    changes = _changes((setting for setting in settings if not _is_websockets(setting)), kinds)
    return replace(Limits(), **changes)


def parse_websocket_limits(settings: Iterable[str]) -> dict[str, Any]:
    """Return the changes to weald.http.websocket.Options: settings whose names begin with `websocket_`.

    Raises ConfigError.
    """
    changes = _changes(filter(_is_websockets, settings), _websocket_kinds())
    return {name.removeprefix(_WEBSOCKET): value for name, value in changes.items()}


def _is_websockets(setting: str) -> bool:
    return setting.strip().replace("-", "_").startswith(_WEBSOCKET)


def _websocket_kinds() -> dict[str, Any]:
    from weald.http.websocket import Options  # which needs wsproto

    return {_WEBSOCKET + item.name: type(item.default) for item in fields(Options) if item.name != "compress"}


def _changes(settings: Iterable[str], kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the values of "name=number" settings by name; `kinds` has their types.  Raises ConfigError."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        name = name.strip().replace("-", "_")
        if name not in kinds:
            raise ConfigError(f"no limit {name!r}; there are: {', '.join(kinds)}")
        try:
            changes[name] = number = kinds[name](value)
            if not (number >= 0 if name in _MAY_BE_NONE else number > 0):
                raise ValueError
            most = _MOST if name not in _LARGE else 1 << 62
            if number > most:
                raise ConfigError(f"the limit {name} must be at most {most}")
        except ValueError:
            raise ConfigError(f"the limit {name} needs a number, not {value!r}") from None
    return changes


def load_module(name: str) -> Any:
    """Return the module of that name.  Raises ConfigError if there is none, and what the module itself raises."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(f"there is no module {name!r} in {sys.path[0]} or elsewhere") from None
        raise


def load_application(name: str) -> Any:
    """Return the application "MODULE:OBJECT", or what "MODULE:FUNCTION()" returns.  Raises ConfigError."""
    module_name, colon, path = name.partition(":")
    path = path if colon else "application"
    call = path.endswith("()")
    if not all(module_name.split(".")):
        raise ConfigError(f"{name}: there is no module {module_name!r}")
    found: Any = load_module(module_name)
    for part in path.removesuffix("()").split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            message = f"{module_name} has no {path.removesuffix('()')!r}"
            if module_name.partition(".")[0] in sys.stdlib_module_names:
                message += "; it is a module of Python's own, so yours needs another name"
            raise ConfigError(message) from None
    if call:
        found = found()
    if not callable(found):
        raise ConfigError(f"{name} is no application: {found!r} cannot be called")
    return found


def load_all(config: Config) -> dict[str, tuple[Any, str]]:
    """The applications of `config` and their interfaces, by prefix; that of "" comes last.  Raises ConfigError."""
    names = dict(mount.split("=", 1) for mount in config.mounts) | {"": config.application}
    applications = {prefix: load_application(name) for prefix, name in names.items()}
    found = {prefix: (application, interface_of(application)) for prefix, application in applications.items()}
    if config.interface != "auto":
        found[""] = applications[""], config.interface
    if config.threads and all(interface == "asgi" for _, interface in found.values()):
        raise ConfigError("--threads is for WSGI applications; an ASGI one has asyncio.to_thread")
    return found
