"""HTTP on greenlets: protocols without I/O apart from what reads and writes sockets.

`protocol` knows HTTP/1.1 and no sockets; `limits` holds what a server puts up with; `body` is what an application
reads a request's body from; `websocket` lets an application speak WebSocket; `http2` serves HTTP/2.
`weald.pywsgi` is the server on top.  weald brings what they need: httptools, wsproto, h2.
"""

from weald.http.limits import Limits

__all__ = ["Limits"]
