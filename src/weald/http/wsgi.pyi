from collections.abc import Callable, Iterable
from typing import Any

from weald.http.channel import Channel
from weald.http.exchange import Exchange

class WSGIExchange(Exchange):
    """Exchanges that the WSGI application `server.application` answers.

    `server` also has the environment: `environ`, or `get_environ()` if that does more than copy it.
    """

    environ: Any
    application: Any
    wsgi_input: Any
    result: Any
    def __init__(self, channel: Channel, server: Any, client_address: Any) -> None: ...
    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take the response's status and fields, as PEP 3333 says.  Return `write`.

        Raises UnicodeError, TypeError or ValueError for a bad status or field, ApplicationError if it was called
        before and `exc_info` is not given, and the exception in `exc_info` if the head was sent already.
        """
    def write(self, data: bytes) -> None:
        """Send `data`, bytes of the body, with the head in front if that was not sent yet.

        Raises ApplicationError if it is more than the Content-Length promised, OSError if the client does not take it.
        """
