"""Limits and timeouts of an HTTP server: how much one client may cost.  All are on by default.

Called by: server.py, http2.py, http2_stream.py, weald.http, weald.compat, weald.integrations.gunicorn, weald.serve.
"""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts of a client.  Sizes are in bytes, times in seconds.

    `dataclasses.replace(limits, body=10 << 20)` returns other limits.
    """

    request_line: int = 8190  # longer: 414 (RFC 9112 section 3 asks for 8000 at least)
    head: int = 65536  # request line and fields together; larger: 431
    fields: int = 100  # fields of a head, and of trailers; more: 431
    body: int = 1 << 30  # longer: 413
    chunk_line: int = 4096  # a chunk's size and extensions; longer: 400
    trailers: int = 8192  # larger: 431

    head_timeout: float = 20.0  # from a head's first byte (or the connection's start) to its last; then 408
    keep_alive_timeout: float = 75.0  # between two requests; then the connection is closed
    body_timeout: float = 30.0  # for the next bytes of a body; then 408
    body_grace: float = 20.0  # how long a body may be slower than `body_rate`
    body_rate: float = 240.0  # bytes a second on the average, after that; slower: 408
    write_timeout: float = 60.0  # a client that takes no bytes for so long is cut off
    linger_timeout: float = 2.0  # how long to read on after the last response, so that the client can read it

    discard: int = 65536  # of a body that the application left unread: more than that closes the connection
    requests: int = 100_000  # of one connection; the last one's response says Connection: close
    connections: int = 50_000  # at once; further ones wait in the listener's backlog

    http2_streams: int = 100  # requests at once on a connection; further ones: REFUSED_STREAM
    http2_window: int = 1 << 18  # bytes of a request's body that may wait for the application
    http2_control: int = 1000  # frames that cost the client nothing, at once; more: ENHANCE_YOUR_CALM
    http2_control_rate: float = 100.0  # and so many more each second
