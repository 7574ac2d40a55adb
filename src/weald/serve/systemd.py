"""systemd's protocols: sockets that it has opened, and notifications of the service's state.  Called by: supervisor."""

import os
import socket
import time

__all__ = ["inherited_sockets", "notify", "watchdog_interval"]

_FIRST = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def inherited_sockets() -> list[socket.socket]:
    """The listeners passed to this process; an empty list if there are none, or they are for another process.

    Raises OSError or ValueError if they are no listeners.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    found = []
    for fd in range(_FIRST, _FIRST + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"{sock} does not listen")
        found.append(sock)
    return found


def watchdog_interval() -> float:
    """Seconds between two signs of life for systemd (WatchdogSec=); 0: none are required (sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0.0
    return max(min(microseconds, 1 << 60) / 2e6, 0.1) if microseconds > 0 else 0.0


def notify(*states: str) -> None:
    """Tell systemd, if it listens: READY=1, STOPPING=1, …; RELOADING=1 gets the time it needs (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    lines = list(states)
    if "RELOADING=1" in lines:
        lines.append(f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, address)
    except OSError:
        pass  # systemd does not listen, or no descriptor is left: no reason to stop
