"""The process of a service: its user, its files for the process id and for standard error, its standard streams, the
cores it may use, the processes it forks.

Called by: config.py, supervisor.py, upgrade.py, worker.py.
"""

import grp
import os
import pwd
import signal
import sys
from collections.abc import Collection
from contextlib import suppress

from weald._base.originals import get_original
from weald._core import steady
from weald.serve.errors import ConfigError
from weald.serve.numbers import parse_number

__all__ = [
    "become",
    "find_ids",
    "fork",
    "open_error_log",
    "remove_pid_file",
    "usable_cores",
    "use_steady_streams",
    "write_pid_file",
]

_fork, _signal, _sigmask = (
    get_original("os", "fork"),
    get_original("signal", "signal"),
    get_original("signal", "pthread_sigmask"),
)


def fork(signals: Collection[int], ignored: Collection[int] = ()) -> int:
    """Fork; return the child's process id, or 0 in the child, where `signals` have their defaults or are `ignored`.

    They are blocked until then: otherwise the parent's handlers would get a signal that is sent to the child just after
    the fork, and it would be lost.  Raises OSError if the system refuses a process.
    """
    before = _sigmask(signal.SIG_BLOCK, signals)
    try:
        pid: int = _fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in signals:
                _signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    finally:
        _sigmask(signal.SIG_SETMASK, before)
    return pid


def use_steady_streams() -> None:
    """Make writes to standard output and error never wait and never raise, so that neither can stop the service.

    If one of them, or standard input, is closed, /dev/null takes its place.  Otherwise a connection could get that
    descriptor, and the text that C code writes to it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number, which is this one
    sys.stdout = steady(sys.stdout or open(1, "w", closefd=False))
    sys.stderr = steady(sys.stderr or open(2, "w", closefd=False))


def open_error_log(path: str) -> None:
    """Send standard error, of this process and its children, to the file `path`; "-": leave it as it is.

    Raises ConfigError.
    """
    if path == "-":
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror}") from None
    os.dup2(fd, 2)
    os.close(fd)


def usable_cores(cgroup: str = "/sys/fs/cgroup") -> int:
    """How many cores this process may use: by its affinity, and by its container's quota of CPU time."""
    cores = len(os.sched_getaffinity(0))
    quota = 0.0
    with suppress(OSError, ValueError):  # version 2 of control groups
        with open(f"{cgroup}/cpu.max") as file:
            most, period = file.read().split()
        if most != "max":
            quota = int(most) / int(period)
    with suppress(OSError, ValueError):  # version 1
        with open(f"{cgroup}/cpu/cpu.cfs_quota_us") as file:
            most_us = int(file.read())
        with open(f"{cgroup}/cpu/cpu.cfs_period_us") as file:
            if most_us > 0:
                quota = most_us / int(file.read())
    return max(1, min(cores, round(quota + 0.49))) if quota else cores


def find_ids(user: str | None, group: str | None) -> tuple[int | None, int | None, str | None]:
    """User's and group's number, and the user's name; None for what stays as it is.  Raises ConfigError."""
    uid = gid = name = None
    if user:
        uid = _id_of(user)
        try:
            entry = pwd.getpwuid(uid) if uid is not None else pwd.getpwnam(user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
        except (KeyError, ValueError):
            if uid is None:
                raise ConfigError(f"there is no user {user}") from None
    if group:
        gid = _id_of(group)
        try:
            gid = grp.getgrnam(group).gr_gid if gid is None else gid
        except (KeyError, ValueError):
            raise ConfigError(f"there is no group {group}") from None
    if uid is not None and gid is None:
        raise ConfigError(f"there is no user {user} whose group could be taken: give --group as well")
    return uid, gid, name


def _id_of(text: str) -> int | None:
    """Return the id that is written as a number, None if `text` is none.  The largest of 32 bits means no id."""
    found = parse_number(text, 11)
    return found if found is not None and found < (1 << 32) - 1 else None


def become(user: str | None, group: str | None) -> None:
    """Become `user` and `group`, without a way back.  Raises ConfigError."""
    uid, gid, name = find_ids(user, group)
    try:
        if gid is not None and gid != os.getegid():
            os.setgid(gid)
        if uid is not None and uid != os.geteuid():
            if name is not None and gid is not None:
                os.initgroups(name, gid)
            else:
                os.setgroups([])
            os.setuid(uid)
    except PermissionError:
        raise ConfigError("only root may become another user or group") from None
    except OSError as error:  # a container that has no such id
        raise ConfigError(f"cannot become user {user} and group {group}: {error.strerror}") from None


def write_pid_file(path: str) -> None:
    """Write this process's id into `path`.  Raises ConfigError."""
    try:
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def remove_pid_file(path: str) -> None:
    """Remove it, if it still has this process's id."""
    with suppress(OSError, ValueError):
        with open(path) as file:
            ours = int(file.read(20)) == os.getpid()  # not all of it: it may be any file
        if ours:
            os.unlink(path)
