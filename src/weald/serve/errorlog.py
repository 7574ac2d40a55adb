"""The error log of `weald serve`: levels, lines of JSON, and syslog in place of standard error.

Called by: supervisor.py, which logs its own lines here; worker.py; config.py; wsgi.py and asgi.py, whose servers log
here.

Invariant: with JSON, all text up to a `write` that ends with a newline is one line of JSON; so is a traceback that
weald reports.  What C code writes to the descriptor itself stays as it is.
"""

import io
import json
import os
import sys
import time
from typing import Any

from weald._core import report, retry_logs
from weald.serve.syslog import Syslog

__all__ = ["LEVELS", "Records", "Warnings", "choose", "log", "retry", "use_syslog"]

LEVELS = ("info", "warning", "error")
_LONGEST = 1 << 16  # characters of a line that has not ended, which is then written all the same
_chosen = 0  # index of the least important level that is written


def choose(level: str, as_json: bool) -> None:
    """Log entries of `level` and above; with `as_json`, write standard error in lines of JSON."""
    global _chosen
    _chosen = LEVELS.index(level)
    if as_json and not isinstance(sys.stderr, Records):
        sys.stderr = Records(sys.stderr, True)


def use_syslog(syslog: Syslog) -> None:
    """Send standard error to `syslog` from now on."""
    if not isinstance(sys.stderr, Records):
        sys.stderr = Records(sys.stderr, False)
    sys.stderr.syslog = syslog


def retry() -> bool:
    """Write lines that could not be written before, as far as possible now; returns whether nothing is left."""
    written = retry_logs()
    syslog = sys.stderr.syslog if isinstance(sys.stderr, Records) else None
    return (syslog is None or syslog.retry()) and written


def log(level: str, text: str) -> None:
    """Write `text`, which has no newline at its end."""
    if LEVELS.index(level) < _chosen:
        return
    if isinstance(sys.stderr, Records):
        sys.stderr.record(level, text)
    else:
        report(f"weald: {text}\n" if level != "warning" else f"{text}\n")


class Records(io.TextIOBase):
    """A standard error that writes whole lines, of JSON or not, to `stream`, or to `syslog` once that is set."""

    def __init__(self, stream: Any, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._begun = ""
        self.syslog: Syslog | None = None

    def record(self, level: str, text: str) -> None:
        """Write one entry."""
        if self._as_json:
            entry = {"time": round(time.time(), 3), "level": level, "pid": os.getpid(), "message": text}
            text = json.dumps(entry)
        self._put(level, text)

    def _put(self, level: str, text: str) -> None:
        if self.syslog is not None:
            self.syslog.send(level, text)
        else:
            self._stream.write(text + "\n")

    def write(self, text: str) -> int:
        """Write text, which counts as an error, once its line ends.  A line that is a JSON object is left as it is."""
        self._begun += text
        if text.endswith("\n") or len(self._begun) > _LONGEST:
            whole, self._begun = self._begun.rstrip("\n"), ""
            if _is_object(whole):
                self._put("error", whole)
            elif whole:
                self.record("error", whole.removeprefix("weald: "))
        return len(text)

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream."""
        return int(self._stream.fileno())

    def flush(self) -> None:
        """Flush the stream; a line that has not ended is kept."""
        self._stream.flush()


def _is_object(text: str) -> bool:
    if not (text.startswith("{") and text.endswith("}") and "\n" not in text):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


class Warnings:
    """A server's error log: clients that are refused, and applications that break HTTP's rules."""

    def write(self, text: str) -> None:
        """Write text."""
        log("warning", text.rstrip("\n"))

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""
