"""WSGIHandler: one connection of a WSGIServer, and the steps of serving it that subclasses may replace.

Called by: server.py, which makes a handler for each connection and each stream of HTTP/2; weald.pywsgi, where users
find it.

Invariants: the work is done by the modules below (steps.pyx lists them by step).  Here are attributes that are only
read.
"""

from typing import Any

from weald.http.environ import Headers
from weald.http.steps import Steps

__all__ = ["WSGIHandler"]


class WSGIHandler(Steps):
    """WSGIHandler(sock, address, server, rfile=None): reads requests, runs the application, writes the responses.

    `WSGIServer.handle` makes one for each connection and calls `handle`.  Subclasses may replace the methods that
    http/steps.pyx lists: the steps from `handle_one_request` to `log_request`, and `handle`, `start_response`,
    `format_request`, `log_error` and `handle_error`.
    """

    protocol_version = "HTTP/1.1"
    _headers: Headers | None = None
    _headers_of: Any = None  # the request that `_headers` shows

    def handle(self) -> None:
        """Serve requests until the connection ends, and close the socket."""
        if self.http_connection is not None:
            self.http_connection.run()

    @property
    def connection_upgraded(self) -> bool:
        """Whether the client has been told that the connection changes its protocol."""
        return bool(self.code == 101 and self.headers_sent)

    @property
    def content_length(self) -> int | None:
        """The number of bytes in the request's body; None if its head does not tell."""
        request = self.parsed_request
        length = request.fields.get("CONTENT_LENGTH") if request is not None else None
        return None if length is None else int(length)

    @property
    def headers(self) -> Headers:
        """The request's fields."""
        request = self.parsed_request
        if self._headers is None or self._headers_of is not request:
            self._headers_of = request
            self._headers = Headers()
            for name, value in request.raw if request is not None else ():
                self._headers[name.decode("latin-1")] = value.decode("latin-1").strip(" \t")
        return self._headers

    @headers.setter
    def headers(self, value: Any) -> None:
        self._headers_of = self.parsed_request
        self._headers = value
