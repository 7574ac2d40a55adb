"""The fields in which a proxy describes its client: Forwarded (RFC 7239) and X-Forwarded-For, -Proto, -Host.

Called by: weald.serve.

Middleware for WSGI and ASGI.  It uses these fields if they come from a trusted proxy, and removes them otherwise.  So
applications see the client in REMOTE_ADDR, wsgi.url_scheme and HTTP_HOST (ASGI: client, scheme and the field host).

Invariants:
- Each proxy appends to the list.  So the list is read from its end, and the client is the first address that is not a
  trusted proxy.  The client itself may have invented the entries before that.
- Fields that contradict each other or cannot be read are an error in the proxy's configuration, answered with 400.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Forwarded", "ForwardedASGI", "Trusted"]

_FIELDS = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
_NAMES = {name[5:].replace("_", "-").lower().encode(): name for name in _FIELDS}
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]*))\s*')
_HOST = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


class Trusted:
    """Trusted(names): the trusted addresses.

    `names`, separated by commas, are addresses and networks, "unix" for Unix sockets, or "*" for all.  ValueError for
    other names.
    """

    def __init__(self, names: str) -> None:
        found = [name.strip() for name in names.split(",") if name.strip()]
        self.everybody = "*" in found
        self.unix = self.everybody or "unix" in found
        self.networks = [ipaddress.ip_network(name, strict=False) for name in found if name not in ("*", "unix")]

    def __contains__(self, address: Any) -> bool:
        """Whether `address` ("" for a Unix socket's client) is trusted."""
        if self.everybody:
            return True
        if not address:
            return self.unix
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any(ip in network or (mapped is not None and mapped in network) for network in self.networks)


class _Bad(Exception):
    """The fields cannot be read."""


def _address(text: str) -> str:
    """The address in "192.0.2.1:80", "[2001:db8::1]:80", "2001:db8::1"; "" for an obfuscated or unknown one."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if text.lower() == "unknown" or text.startswith("_"):
            return ""
        raise _Bad(f"no address: {text[:50]!r}") from None


def _forwarded(value: str) -> list[dict[str, str]]:
    """RFC 7239's elements, the nearest proxy's last."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(value):
        found = _PAIR.match(value, position)
        if found is None:
            raise _Bad("Forwarded cannot be read")
        name = found[1].lower()
        if name in elements[-1]:
            raise _Bad(f"Forwarded has {name} twice")
        elements[-1][name] = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
        position = found.end()
        if position < len(value):
            if value[position] == ",":
                elements.append({})
            elif value[position] != ";":
                raise _Bad("Forwarded cannot be read")
            position += 1
    return elements


class Forwarded:
    """The WSGI application `application` behind proxies that `trusted` contains."""

    def __init__(self, application: Any, trusted: Trusted) -> None:
        self.application = application
        self.trusted = trusted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("REMOTE_ADDR", "") in self.trusted:
            try:
                _believe(environ, self.trusted)
            except _Bad as error:
                body = f"the proxy's fields: {error}\n".encode()
                start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
                return [body]
        else:
            for name in _FIELDS:
                environ.pop(name, None)
        result: Iterable[bytes] = self.application(environ, start_response)
        return result


class ForwardedASGI:
    """The ASGI application `application` behind proxies that `trusted` contains."""

    def __init__(self, application: Any, trusted: Trusted) -> None:
        self.application = application
        self.trusted = trusted

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.application(scope, receive, send)  # type: ignore[no-any-return]
        client = scope["client"]
        if (client[0] if client else "") in self.trusted:
            try:
                self._believe(scope)
            except _Bad as error:
                return await _refuse(scope, send, f"the proxy's fields: {error}\n")
        else:
            scope["headers"] = [field for field in scope["headers"] if field[0] not in _NAMES]
        await self.application(scope, receive, send)

    def _believe(self, scope: dict[str, Any]) -> None:
        """Put the values of the fields into `scope`."""
        scheme = scope["scheme"]
        client = scope["client"]
        environ = {"wsgi.url_scheme": {"ws": "http", "wss": "https"}.get(scheme, scheme)}
        if client:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client
        for name, value in scope["headers"]:
            key = _NAMES.get(name)
            if key is not None:
                text = value.decode("latin-1")
                environ[key] = f"{environ[key]}, {text}" if key in environ else text
        _believe(environ, self.trusted)
        if "REMOTE_ADDR" in environ:
            scope["client"] = environ["REMOTE_ADDR"], environ.get("REMOTE_PORT", 0)
        plain = environ["wsgi.url_scheme"]
        scope["scheme"] = {"http": "ws", "https": "wss"}[plain] if scheme.startswith("ws") else plain
        if "HTTP_HOST" in environ:
            others = [field for field in scope["headers"] if field[0] != b"host"]
            scope["headers"] = [(b"host", environ["HTTP_HOST"].encode("latin-1")), *others]


async def _refuse(scope: dict[str, Any], send: Any, text: str) -> None:
    """Answer 400."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text.encode()))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


# -------------------------------------------------------------------- what both do


def _believe(environ: dict[str, Any], trusted: Trusted) -> None:
    """Put the values of the fields into `environ`."""
    proto = host = ""
    if "HTTP_FORWARDED" in environ:
        elements = _forwarded(environ["HTTP_FORWARDED"])
        chain = [element.get("for", "unknown") for element in elements]
        index = _client(environ, chain, trusted)
        # The element of the proxy that the client has spoken to.
        proto, host = elements[index].get("proto", ""), elements[index].get("host", "")
    elif "HTTP_X_FORWARDED_FOR" in environ:
        chain = environ["HTTP_X_FORWARDED_FOR"].split(",")
        _client(environ, chain, trusted)
    if "HTTP_FORWARDED" not in environ:
        proto = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip()
        host = environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip()
    if proto:
        scheme = {"wss": "https", "ws": "http"}.get(proto.lower(), proto.lower())
        if scheme not in ("http", "https"):
            raise _Bad(f"no scheme: {proto[:20]!r}")
        environ["wsgi.url_scheme"] = scheme
        if scheme == "https":
            environ["HTTPS"] = "on"
        else:
            environ.pop("HTTPS", None)
    if host:
        if not _HOST.fullmatch(host):
            raise _Bad(f"no host: {host[:50]!r}")
        environ["HTTP_HOST"] = host


def _client(environ: dict[str, Any], chain: list[str], trusted: Trusted) -> int:
    """Set REMOTE_ADDR to the client's address; return its position in `chain`."""
    for index in range(len(chain) - 1, -1, -1):
        address = _address(chain[index])
        if index == 0 or not address or address not in trusted:
            break
    if address:
        environ["REMOTE_ADDR"] = address
        environ.pop("REMOTE_PORT", None)  # it was the proxy's
    return index
