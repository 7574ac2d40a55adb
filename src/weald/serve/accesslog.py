"""Access logs: the formats of a line, and a file that never blocks the loop.

Called by: worker.py, wsgi.py, asgi.py; supervisor.py, which checks that the file can be opened.
"""

import errno
import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from time import localtime, strftime
from typing import Any

from weald import threadpool
from weald._base.resident import Resident
from weald._core import Lock, Steady, report, sleep
from weald.http.logs import quoted
from weald.serve.errors import ConfigError
from weald.serve.syslog import Syslog

__all__ = ["FORMATS", "AccessLog", "LogFile", "SyslogLines", "check_writable", "line_maker"]


def _address(handler: Any) -> str:
    address = handler.client_address
    return str(address[0]) if isinstance(address, tuple) else "-"


@lru_cache(maxsize=1)
def _when(second: int) -> str:
    return strftime("%d/%b/%Y:%H:%M:%S %z", localtime(second))


def _common(handler: Any) -> str:
    when = _when(int(handler.time_start))
    line = quoted(handler.requestline or "-")
    return f'{_address(handler)} - - [{when}] "{line}" {_code(handler)} {handler.response_length or "-"}'


def _code(handler: Any) -> int:
    """The status's code; 0 if there is none."""
    return abs(int(handler.code or 0))


def _field(handler: Any, key: str) -> str:
    if hasattr(handler, "environ"):
        fields = handler.environ
    else:  # an ASGI application's
        fields = handler.parsed_request and handler.parsed_request.fields
    return str((fields or {}).get(key, ""))


def _combined(handler: Any) -> str:
    referer, agent = quoted(_field(handler, "HTTP_REFERER")), quoted(_field(handler, "HTTP_USER_AGENT"))
    return f'{_common(handler)} "{referer or "-"}" "{agent or "-"}"'


def _json(handler: Any) -> str:
    return json.dumps(
        {
            "time": round(handler.time_start, 6),
            "remote": _address(handler),
            "method": handler.command,
            "target": handler.path,
            "protocol": handler.request_version,
            "host": _field(handler, "HTTP_HOST"),
            "status": _code(handler),
            "bytes": handler.response_length,
            "seconds": round(max(handler.time_finish - handler.time_start, 0), 6),
            "referer": _field(handler, "HTTP_REFERER"),
            "agent": _field(handler, "HTTP_USER_AGENT"),
            "pid": os.getpid(),
        }
    )


def _code_text(handler: Any) -> str:
    return f"{_code(handler):03d}"


def _seconds(handler: Any) -> float:
    return max(float(handler.time_finish - handler.time_start), 0.0)


def _response_field(handler: Any, name: str) -> str:
    wanted = name.lower().encode()
    fields = handler.response_headers or ()
    return next((bytes(value).decode("latin-1") for key, value in fields if bytes(key).lower() == wanted), "-")


# The names in a custom format, used as %(name)s; with the meaning of Apache's letters, as far as they apply.
_PARTS: dict[str, Callable[[Any], Any]] = {
    "h": _address,
    "l": lambda handler: "-",
    "u": lambda handler: quoted(_field(handler, "REMOTE_USER")) or "-",
    "t": lambda handler: f"[{_when(int(handler.time_start))}]",
    "r": lambda handler: quoted(handler.requestline or "-"),
    "m": lambda handler: quoted(handler.command or "-"),
    "U": lambda handler: quoted((handler.path or "-").partition("?")[0]),
    "q": lambda handler: quoted((handler.path or "").partition("?")[2]),
    "H": lambda handler: handler.request_version or "-",
    "s": _code_text,
    "B": lambda handler: handler.response_length,
    "b": lambda handler: handler.response_length or "-",
    "f": lambda handler: quoted(_field(handler, "HTTP_REFERER")) or "-",
    "a": lambda handler: quoted(_field(handler, "HTTP_USER_AGENT")) or "-",
    "T": lambda handler: int(_seconds(handler)),
    "M": lambda handler: int(_seconds(handler) * 1e3),
    "D": lambda handler: int(_seconds(handler) * 1e6),
    "L": lambda handler: f"{_seconds(handler):.6f}",
    "p": lambda handler: os.getpid(),
}
_part = re.compile(r"%\(([^)]*)\)s|%%")


def line_maker(form: str) -> Callable[[Any], str]:
    """Return a function that makes lines of the format `form` for exchanges.

    `form` is one of FORMATS, or text in which %(h)s and the like, %({name}i)s (a field of the request), %({name}o)s (of
    the response) and %({name}e)s (of the WSGI environment) are replaced.  Raises ConfigError for an unknown name.
    """
    if form in FORMATS:
        return FORMATS[form]
    parts: list[str | Callable[[Any], Any]] = []
    end = 0
    for found in _part.finditer(form):
        if "%" in form[end : found.start()]:
            break
        parts += [form[end : found.start()], "%" if found[1] is None else _maker(found[1])]
        end = found.end()
    if "%" in form[end:]:
        raise ConfigError(f"--access-log: a single % in {form!r}; there are %(h)s and the like, and %%")
    parts.append(form[end:])
    return lambda handler: "".join(part if isinstance(part, str) else str(part(handler)) for part in parts)


def _maker(name: str) -> Callable[[Any], Any]:
    """Return a function that makes the part `name` of a line."""
    if name in _PARTS:
        return _PARTS[name]
    inner = re.fullmatch(r"\{([^{}\s]+)\}([ioe])", name)
    if inner is None:
        raise ConfigError(f"--access-log: %({name})s is unknown; there are {', '.join(_PARTS)} and {{name}}i, o, e")
    key, kind = inner[1], inner[2]
    if kind == "o":
        return lambda handler: quoted(_response_field(handler, key))
    if kind == "i":
        key = key.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
    return lambda handler: quoted(_field(handler, key)) or "-"


# Functions that make a line for an Exchange whose response has been sent.
FORMATS: dict[str, Callable[[Any], str]] = {"common": _common, "combined": _combined, "json": _json}


class LogFile:
    """Collects lines; a thread writes them to the file five times a second.  So a slow disk delays no request.

    Lines that cannot be written are kept, up to `limit` bytes, and tried again; further ones are dropped and counted.
    Raises ConfigError if the file cannot be opened.
    """

    limit = 4 << 20

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: list[str] = []
        self._fd = -1
        self._writing = Lock()
        self._failed = False
        try:
            self.reopen()
        except OSError as error:
            raise ConfigError(f"cannot write to {path}: {error.strerror}") from None
        self._out = Steady(self._fd, self.limit)
        Resident(self._flush_forever)

    def reopen(self) -> None:
        """Continue in a new file of the same name, because the old one was renamed."""
        if self.path == "-":
            self._fd = 1
            return
        new = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._fd < 0:
            self._fd = new
        else:
            os.dup2(new, self._fd, inheritable=False)  # the thread may be writing
            os.close(new)

    def write(self, line: str) -> None:
        """Append a line, without its end; never blocks."""
        self._lines.append(line)

    def pending(self) -> bool:
        """Whether there is something that has not been written."""
        return bool(self._lines or self._out.pending())

    def _flush_forever(self) -> None:
        while True:
            sleep(0.2, ref=False)
            if self.pending():
                self.flush()

    def flush(self) -> None:
        """Write the collected lines, as far as that is possible now."""
        with self._writing:
            lines, self._lines = self._lines, []
            threadpool.default().apply(self._write, (lines,))
            error = self._out.error
            if error is not None and not self._failed:
                report(f"weald: cannot write the access log {self.path}: {error}\n")
            self._failed = error is not None

    def _write(self, lines: list[str]) -> None:
        """In a thread."""
        if lines:
            self._out.write("\n".join(lines).encode("utf-8", "backslashreplace") + b"\n")
        else:
            self._out.retry()


class SyslogLines:
    """Takes the place of a LogFile and sends its lines to syslog."""

    def __init__(self, syslog: Syslog) -> None:
        self._syslog = syslog

    def write(self, line: str) -> None:
        """Send a line; never blocks."""
        self._syslog.send("info", line)

    def pending(self) -> bool:
        """Whether there is something that has not been sent."""
        return self._syslog.pending()

    def reopen(self) -> None:
        """Do nothing: no file is renamed."""

    def flush(self) -> None:
        """Send what could not be sent before, as far as that is possible now."""
        self._syslog.retry()


AccessLog = LogFile | SyslogLines


def check_writable(path: str) -> None:
    """Raises ConfigError if a LogFile of `path` could not be opened.  Creates nothing."""
    if path == "-":
        return
    there = path if os.path.exists(path) else os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(there, os.W_OK):
        why = os.strerror(
            errno.EISDIR if os.path.isdir(path) else errno.EACCES if os.path.exists(there) else errno.ENOENT
        )
        raise ConfigError(f"cannot write to {path}: {why}")
