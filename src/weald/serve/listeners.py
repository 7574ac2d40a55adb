"""The sockets that `weald serve` listens on: parsing addresses, binding, describing and closing them.

Called by: supervisor.py, config.py.

All workers share one listener for each address, so that a free worker accepts a connection: a worker that computes,
hangs, loads or cannot start delays none.  (With a listener per worker in an SO_REUSEPORT group the kernel spreads
connections whether or not a worker accepts them: of two workers one stuck one delayed half of all connections.)
"""

import ctypes
import errno
import os
import socket
import stat
import struct

from weald.serve.errors import ConfigError
from weald.serve.numbers import parse_number, parse_port

__all__ = ["bind_address", "check_addresses", "describe", "file_id", "parse_bind", "refuse_newcomers"]

_SO_ATTACH_FILTER = 26  # socket(7); what follows is classic BPF's: BPF_LD | BPF_B | BPF_ABS and so on
_LOAD_BYTE, _TEST_BITS, _RETURN = 0x30, 0x45, 0x06

Address = str | int | tuple[str, int]


def parse_bind(bind: str) -> Address:
    """Return the address that `bind` names.

    For "unix:PATH" the path (for an abstract "unix:@NAME" it begins with NUL), for "fd://N" the descriptor, for
    "HOST:PORT", "[::1]:PORT", ":PORT" and "*:PORT" (the last two: every interface) (host, port).  Raises ConfigError.
    """
    if bind.startswith("unix:") and bind not in ("unix:", "unix:@"):
        path = bind.removeprefix("unix:")
        return "\0" + path[1:] if path.startswith("@") else path
    if bind.startswith("fd://") and (number := parse_number(bind[5:], 9)) is not None:
        return number
    host, colon, port = bind.rpartition(":")
    number = parse_port(port)
    if not colon or number is None or "://" in bind:
        raise ConfigError(f"no address to bind to: {bind!r}; it should be like 127.0.0.1:8000, unix:PATH or fd://3")
    host = host.removeprefix("[").removesuffix("]")
    return "" if host == "*" else host, number


def bind_address(bind: str, backlog: int, mode: int = 0o666) -> list[socket.socket]:
    """Return listeners for `bind`: two, for IPv4 and IPv6, if it is a port of every interface.

    `mode` is a Unix socket's.  Raises ConfigError.
    """
    address = parse_bind(bind)
    try:
        if isinstance(address, int):
            return [_inherited(address)]
        if isinstance(address, str):
            return [_unix(address, backlog, mode)]
        host, port = address
        if host:
            return [_tcp(host, port, backlog)]
        found = [_tcp("0.0.0.0", port, backlog)]
        if socket.has_ipv6:
            try:
                # A socket for both families would show IPv4's clients as ::ffff:192.0.2.1.
                found.append(_tcp("::", found[0].getsockname()[1], backlog))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    found[0].close()
                    raise
        return found
    except OSError as error:
        raise ConfigError(f"cannot bind to {bind}: {error.strerror or error}") from error


def _inherited(fd: int) -> socket.socket:
    sock = socket.socket(fileno=os.dup(fd))
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(errno.EINVAL, "that socket does not listen")
    return sock


def _tcp(host: str, port: int, backlog: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str, backlog: int, mode: int) -> socket.socket:
    if _is_socket(path) and not _answers(path):
        os.unlink(path)  # a process died and left it
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        if not path.startswith("\0"):
            os.chmod(path, mode)  # to connect takes the right to write, and a proxy is another user
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def check_addresses(binds: tuple[str, ...], backlog: int) -> list[str]:
    """Bind to each of `binds` and close it again.  Return those in use, perhaps by the running service.

    Raises ConfigError if one cannot be bound for another reason.
    """
    busy = []
    for bind in binds:
        address = parse_bind(bind)
        try:
            for sock in bind_address(bind, backlog):
                sock.close()
            if isinstance(address, str) and not address.startswith("\0"):
                os.unlink(address)
        except ConfigError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
            if isinstance(address, str) and os.path.exists(address) and not _is_socket(address):
                raise  # a file
            busy.append(bind)
    return busy


def refuse_newcomers(sock: socket.socket) -> bool:
    """Make the kernel drop each SYN, so that no connection is made between the last accept and the listener's end.

    Such a connection would be reset.  A client whose SYN is dropped sends it again after a second.  Then it is refused,
    or reaches the successor.  Returns whether the kernel does it.
    """
    # Offset 13 of a TCP header has the flags; 2 is SYN: then take 0 bytes of the packet, else all.
    program = ((_LOAD_BYTE, 0, 0, 13), (_TEST_BITS, 0, 1, 2), (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
    except OSError:
        return False  # a kernel without socket filters, or not for every user: some connections may be reset
    return True


def file_id(path: str) -> tuple[int, int]:
    """Return what tells the file `path` from another of that name: its device and number.  Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):  # an abstract name has a NUL
        return False


def _answers(path: str) -> bool:
    """Return whether a process serves this Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def describe(sock: socket.socket, scheme: str) -> str:
    """Return the address at which `sock` listens, in the form that users write."""
    name = sock.getsockname()
    if isinstance(name, bytes):
        return f"unix:@{name[1:].decode(errors='replace')}"
    if isinstance(name, str):
        return f"unix:{name}"
    host = name[0]
    if ":" in host:
        zone = f"%{socket.if_indextoname(name[3])}" if name[3] and "%" not in host else ""
        host = f"[{host}{zone}]"
    return f"{scheme}://{host}:{name[1]}"
