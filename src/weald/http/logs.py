"""The logs of an HTTP server, and the access log's line for a request.

Called by: exchange.pyx; server.py, which makes the logs of a server; weald.pywsgi, which exports LoggingLogAdapter;
weald.serve.
"""

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from weald._core import steady

__all__ = ["LoggingLogAdapter", "NoopLog", "access_line", "make_log", "quoted"]

_unsafe = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')


def quoted(text: str) -> str:
    """Return `text`, which a client has sent, escaped: it can end neither a line nor a quoted part of one."""
    return _unsafe.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def access_line(exchange: Any) -> str:
    """Return the line for a request that was answered, or refused: without a newline.

    Bytes of the client that could end the line, or a quoted part of it, are escaped.
    """
    address = exchange.client_address
    address = address[0] if isinstance(address, tuple) else address
    line = quoted(exchange.requestline or "")
    status = exchange.status or "000"
    if isinstance(status, bytes):
        status = status.decode("latin-1")
    seconds = f"{exchange.time_finish - exchange.time_start:.6f}" if exchange.time_finish else "-"
    now = datetime.now().replace(microsecond=0)
    return f'{address or "-"} - - [{now}] "{line}" {status.split()[0]} {exchange.response_length or "-"} {seconds}'


def make_log(log: Any, level: int) -> Any:
    """Return an object with `write` for the setting `log`.

    "default" is sys.stderr, None a log that keeps nothing; a logging.Logger is written to with the level `level`.
    """
    if isinstance(log, str) and log == "default":
        return steady(sys.stderr)
    if log is None:
        return NoopLog()
    if not hasattr(log, "write") and hasattr(log, "log"):
        return LoggingLogAdapter(log, level)
    return log


class NoopLog:
    """A log that keeps nothing."""

    def write(self, *args: Any) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def writelines(self, *args: Any) -> None:
        """Do nothing."""


class LoggingLogAdapter:
    """LoggingLogAdapter(logger, level=20): a logging.Logger that can be written to like a file.

    Each write is logged with the level `level` (20: INFO).  Other attributes are the logger's.
    """

    __slots__ = ("_level", "_logger")

    def __init__(self, logger: Any, level: int = 20) -> None:
        self._logger = logger
        self._level = level

    def write(self, msg: str) -> None:
        """Log `msg`, without its newline."""
        self._logger.log(self._level, msg.removesuffix("\n") if msg else msg)

    def flush(self) -> None:
        """Do nothing: a logger keeps nothing back."""

    def writelines(self, lines: Iterator[str]) -> None:
        """Log each of `lines`."""
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
