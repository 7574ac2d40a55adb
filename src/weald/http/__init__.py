"""HTTP on greenlets: WSGI and ASGI applications over HTTP/1.1 and HTTP/2, and WebSockets.

The packages they need (httptools, wsproto, h2) come with weald.  Users find the WSGI server in `weald.pywsgi`, the ASGI
server in `weald.asgi`.

Called by: users, who find `Limits` here.

Each module calls those below it.  Those that every request goes through are compiled (.pyx).

- `server`: listens, keeps a list of its connections, ends them in order.
- `handler`, `steps` (compiled): the interface of a connection for subclasses, and the steps that they may replace.
- `connection` (compiled): waits for the requests of an HTTP/1.1 connection, and ends it; `http2`: a connection of
  HTTP/2.
- `wsgi` (compiled): how a WSGI application answers a request.
- `asgi_server`: the server of ASGI applications, and of WSGI ones beside them; `lifespan`: their startup and shutdown.
- `asgi`, `asgi_websocket`, `asgi_parts` (compiled): how an ASGI application answers a request.
- `exchange` (compiled): one request and its response, by any protocol.
- `channel` (compiled): how an exchange reaches its client over HTTP/1.1; `http2_stream`: over a stream of HTTP/2.
- `state` (compiled): state that the connections of a server share.
- `protocol` (compiled): requests of HTTP/1.1, without I/O; `fields`: heads of responses.
- `body`, `disconnected`, `environ`, `logs`, `limits`, `wire`, `extras`, `interface`: parts that the others use.
- `forwarded`, `proxy_protocol`: the client's address as a trusted proxy states it.
- `websocket`: WebSockets inside of applications; `frames` (compiled): their plain frames.
"""

from weald.http.limits import Limits

__all__ = ["Limits"]
