"""What a query to the name servers comes to: an answer or a failure; and what a resolver's query must do.

Called by: _dns.py, _queries.py.  Resolvers import these names from _dns.py.
"""

import _socket
from typing import NamedTuple, Protocol

__all__ = ["Answer", "DnsFailure", "Question", "Rejection", "Server"]

Server = tuple[str, int]  # address, port


class Answer(NamedTuple):
    """A name server's positive answer."""

    names: list[str]  # the name asked for, then the targets of its aliases (CNAME); the last is the canonical name
    values: list[str]  # addresses, or names for PTR


class DnsFailure(Exception):
    """A query that has no answer.  `reason` is one of the constants below, which are also the errnos of herror."""

    NOT_FOUND, TRY_AGAIN, FAILED, NO_DATA = 1, 2, 3, 4

    # errno of socket.gaierror and both texts, as the GNU C library has them.
    _ERRORS = {
        NOT_FOUND: (_socket.EAI_NONAME, "Name or service not known", "Unknown host"),
        TRY_AGAIN: (_socket.EAI_AGAIN, "Temporary failure in name resolution", "Host name lookup failure"),
        FAILED: (_socket.EAI_NONAME, "Name or service not known", "Unknown server error"),
        NO_DATA: (_socket.EAI_NODATA, "No address associated with hostname", "No address associated with name"),
    }

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason

    def gaierror(self) -> _socket.gaierror:
        """Return the exception that getaddrinfo and gethostbyname raise for this failure."""
        number, text, _ = self._ERRORS[self.reason]
        return _socket.gaierror(number, text)

    def herror(self) -> _socket.herror:
        """Return the exception that gethostbyaddr raises for this failure."""
        return _socket.herror(self.reason, self._ERRORS[self.reason][2])


class Rejection(DnsFailure):
    """This server will not or cannot answer, so the next one is asked.  `servfail`: it tried and failed (SERVFAIL)."""

    def __init__(self, servfail: bool = False) -> None:
        super().__init__(DnsFailure.TRY_AGAIN)
        self.args = (servfail,)
        self.servfail = servfail


class Question(Protocol):
    """One query, sent to one server after the other.  Replies from all of them are accepted until it is closed."""

    def ask(self, server: Server, patience: float) -> None:
        """Send the query to `server` (again, if it was asked before); it has `patience` seconds to reply."""

    def next_reply(self, timeout: float) -> tuple[Server, Answer | DnsFailure] | None:
        """Return the next reply and its server; None if there is none within `timeout` seconds.

        With 0 it returns a reply that has come already.  Messages that answer nothing do not prolong the wait.
        """

    def close(self) -> None:
        """Stop waiting for replies."""
