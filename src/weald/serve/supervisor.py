"""The parent process of `weald serve`: binds, forks the workers, and keeps them: restarts, reloads, stops.

Called by: weald.__main__.  It never loads the application, so each worker it forks begins with the code of the moment,
and it has no event loop of weald's: it waits in a selector.

Invariants:
- The listeners live here.  Each worker slot has its own for each TCP address (SO_REUSEPORT), handed on to the slot's
  next worker, so nothing that the kernel has accepted for it is ever reset.
- A worker is told to stop only when its successor is ready.  A successor that cannot start changes nothing.
- Whatever is told to stop is gone after `graceful_timeout` and a second.
"""

import ctypes
import errno
import os
import random
import selectors
import signal
import socket
import stat
import struct
import sys
import traceback
from dataclasses import dataclass
from time import monotonic

from weald._core import report, retry_logs, steady
from weald.serve import systemd, worker
from weald.serve.config import Config, ConfigError, parse_bind
from weald.serve.metrics import Metrics

__all__ = ["run"]

BACKLOG = 2048
_YOUNG = 10.0  # seconds: a worker that dies sooner is replaced after a pause
_PAUSE = 1.0
_SO_ATTACH_FILTER = 26  # socket(7); what follows is classic BPF's: BPF_LD | BPF_B | BPF_ABS and so on
_LOAD_BYTE, _TEST_BITS, _RETURN = 0x30, 0x45, 0x06
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


def say(text: str) -> None:
    """Write a line to standard error."""
    report(f"weald: {text}\n")


def use_steady_streams() -> None:
    """Have standard output and error take whatever is written, at once: neither may decide about service.

    Where the two, or standard input, are closed, /dev/null takes their places: a connection of that number would get
    what C code writes there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number, which is this one
    sys.stdout = steady(sys.stdout or open(1, "w", closefd=False))
    sys.stderr = steady(sys.stderr or open(2, "w", closefd=False))


@dataclass(eq=False)
class Child:
    """A forked process."""

    slot: int  # -1: the one that serves the metrics
    pid: int
    control: socket.socket
    generation: int  # the reload it has followed, or tried to
    begun: float
    deadline: float  # when to kill it: not ready, no beat, or not gone by then
    replaces: "Child | None" = None
    ready: bool = False
    stopping: bool = False
    next_try: float = 0.0  # when it may be given a successor that it asks for
    successor: "Child | None" = None


def _open(address: str | tuple[str, int], shared: bool) -> socket.socket:
    if isinstance(address, str):
        if _is_socket(address) and not _answers(address):
            os.unlink(address)  # a process died and left it
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
        os.chmod(address, 0o666)  # to connect takes the right to write, and a proxy is another user
        sock.listen(BACKLOG)
        return sock
    host, port = address
    if not host:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=BACKLOG, reuse_port=shared, dualstack_ipv6=dual)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)


def refuse_newcomers(sock: socket.socket) -> None:
    """Have the kernel drop each SYN, so that no connection is made between the last accept and the listener's end.

    It would be reset.  Whose SYN is dropped tries again after a second, and then is refused, or finds our successor.
    """
    # Offset 13 of a TCP header has the flags; 2 is SYN: then take 0 bytes of the packet, else all.
    program = ((_LOAD_BYTE, 0, 0, 13), (_TEST_BITS, 0, 1, 2), (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
    except OSError:
        pass  # a kernel without: some may be reset


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _answers(path: str) -> bool:
    """Return whether a process serves this Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return False
    return True


def bind_all(config: Config) -> list[list[socket.socket]]:
    """The listeners of each slot.  Raises ConfigError."""
    slots: list[list[socket.socket]] = [[] for _ in range(config.workers)]
    for bind in config.binds:
        address = parse_bind(bind)
        try:
            if config.workers > 1 and isinstance(address, tuple) and address[1]:
                _open(address, False).close()  # a port that another server shares among its workers is in use, too
            first = _open(address, config.workers > 1)
            if isinstance(address, tuple):
                address = (address[0], first.getsockname()[1])
            for i, slot in enumerate(slots):
                alone = i == 0 or isinstance(address, str)
                slot.append(first if alone else _open(address, True))
        except OSError as error:
            raise ConfigError(f"cannot bind to {bind}: {error.strerror or error}") from None
    return slots


def describe(sock: socket.socket, config: Config) -> str:
    """Return the listener's address as a URL, or unix:PATH."""
    scheme = "https" if config.certfile else "http"
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"


class Supervisor:
    """The parent process: holds the listeners, and starts, watches, replaces and stops the workers."""
    def __init__(self, config: Config) -> None:
        self.config = config
        try:
            inherited = systemd.inherited_sockets()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the sockets from systemd cannot be used: {error}") from None
        self.inherited = bool(inherited)
        self.listeners = [inherited] * config.workers if inherited else bind_all(config)
        self.paths = [bind.removeprefix("unix:") for bind in config.binds if bind.startswith("unix:") and not inherited]
        self.metrics = Metrics(config.workers)
        self.metrics_listener = None
        if config.metrics:
            address = parse_bind(config.metrics)
            try:
                self.metrics_listener = _open(address, False)
            except OSError as error:
                raise ConfigError(f"cannot bind to {config.metrics}: {error.strerror or error}") from None
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.restarts: list[tuple[float, int]] = []  # when to start a slot's worker again
        self.failures = 0  # workers in a row that did not start
        self.generation = 0  # counts the reloads
        self.stopping = False
        self.announced = False
        self.status = 0
        self.logs_wait = False  # is there something that could not be written yet?

    # ---------------------------------------------------------------- children

    def start(self, slot: int, replaces: Child | None = None) -> None:
        """Fork a worker for `slot` (-1: the process that serves the metrics), a successor of `replaces` perhaps."""
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_child(slot, ours, theirs)
        theirs.close()
        ours.setblocking(False)
        now = monotonic()
        child = Child(slot, pid, ours, self.generation, now, now + self.config.boot_timeout, replaces)
        if replaces is not None:
            replaces.successor = child
        self.children[pid] = child
        self.selector.register(ours, selectors.EVENT_READ, child)

    def _become_child(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """In the child: never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C reaches the whole group of processes; the parent tells us what to do about it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self.selector.close()
            ours.close()
            for child in self.children.values():
                child.control.close()
            random.seed()
            if slot < 0:
                assert self.metrics_listener is not None
                status = worker.serve_metrics(self.metrics_listener, theirs, self.metrics)
            else:
                if self.metrics_listener is not None:
                    self.metrics_listener.close()
                for i, listeners in enumerate(self.listeners):
                    if i != slot:
                        for sock in listeners:
                            if sock not in self.listeners[slot]:
                                sock.close()
                status = worker.run(self.config, self.listeners[slot], theirs, self.metrics, slot)
        except BaseException:
            report(traceback.format_exc())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def stop(self, child: Child, number: int = signal.SIGTERM) -> None:
        """Send the child a signal; it is killed if it has not ended when its time is up."""
        child.stopping = True
        child.deadline = monotonic() + (self.config.graceful_timeout if child.slot >= 0 else 0) + 1
        self.kill(child, number)

    def kill(self, child: Child, number: int) -> None:
        """Send the child signal `number`, if it still exists."""
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            pass

    def on_message(self, child: Child) -> None:
        """A child says something."""
        try:
            said = child.control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self.selector.unregister(child.control)
            child.control.close()
            return
        if not child.stopping:
            child.deadline = monotonic() + self.config.timeout if self.config.timeout and child.slot >= 0 else 1e30
        if b"r" in said:
            child.ready = True
            self.failures = 0
            if child.replaces is not None:
                self.stop(child.replaces)
                child.replaces.successor = None
                child.replaces = None
            self.start_successors()
            self.announce()
        free = not child.stopping and child.successor is None and not self.stopping
        if b"x" in said and free and monotonic() >= child.next_try:
            say(f"worker {child.pid} has served its time")
            self.start(child.slot, child)

    def announce(self) -> None:
        """When all are ready: say so, the first time and after each reload."""
        if self.stopping or any(not child.ready for child in self.children.values()):
            return
        systemd.notify("READY=1", f"MAINPID={os.getpid()}")
        if not self.announced:
            self.announced = True
            where = ", ".join(describe(sock, self.config) for sock in self.listeners[0])
            if self.metrics_listener is not None:
                where += f", metrics at {describe(self.metrics_listener, Config(''))}/metrics"
            say(f"{self.config.workers} worker{'s' * (self.config.workers > 1)} at {where}")

    def reap(self) -> None:
        """Take note of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                self.on_exit(child, os.waitstatus_to_exitcode(status))

    def on_exit(self, child: Child, code: int) -> None:
        """A child has ended."""
        try:
            self.selector.unregister(child.control)
        except (KeyError, ValueError):
            pass
        child.control.close()
        if child.successor is not None:
            child.successor.replaces = None
        if child.replaces is not None:
            child.replaces.successor = None
        if child.stopping:
            return
        how = f"signal {-code}" if code < 0 else f"status {code}"
        now = monotonic()
        pause = _PAUSE if now - child.begun < _YOUNG else 0.0
        if not child.ready:
            self.failures += 1
            pause = min(0.5 * self.failures, 30.0)
            if child.replaces is not None:
                child.replaces.next_try = now + pause
                say(f"a new worker did not start ({how}); the old one goes on")
                systemd.notify("READY=1")
                return
            if not self.announced:
                say(f"a worker did not start ({how})")
                self.status = 1
                self.stop_all()
                return
        say(f"worker {child.pid} died ({how})")
        if not self.stopping and child.successor is None:
            self.restarts.append((now + pause, child.slot))

    # ---------------------------------------------------------------- what we are told

    def reload(self) -> None:
        """Replace each worker by one with the code of now."""
        say("reloading")
        systemd.notify("RELOADING=1")
        self.generation += 1
        self.start_successors()

    def start_successors(self) -> None:
        """Start a successor for each worker that is older than the last reload, once it has none under way."""
        for child in list(self.children.values()):
            if child.slot < 0 or child.stopping or not child.ready or child.successor is not None or self.stopping:
                continue
            if child.generation < self.generation:
                child.generation = self.generation  # tried once: it goes on if its successor cannot start
                self.start(child.slot, child)

    def stop_all(self, number: int = signal.SIGTERM) -> None:
        """Close the listeners and send each child signal `number`."""
        if not self.stopping:
            systemd.notify("STOPPING=1")
        self.stopping = True
        self.restarts.clear()
        # New connections are refused from here on; the workers take what is in their backlogs.
        for listeners in self.listeners:
            for sock in listeners:
                if not self.inherited and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
                    refuse_newcomers(sock)
                sock.close()
        if self.metrics_listener is not None:
            self.metrics_listener.close()
        self.remove_sockets()
        for child in list(self.children.values()):
            if not child.stopping or number != signal.SIGTERM:
                self.stop(child, number)

    def on_signal(self, number: int) -> None:
        """Do what signal `number` asks for."""
        if number == signal.SIGHUP and not self.stopping:
            self.reload()
        elif number == signal.SIGUSR1:
            for child in self.children.values():
                if child.ready:
                    self.kill(child, signal.SIGUSR1)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            hurry = number == signal.SIGQUIT or (number == signal.SIGINT and self.stopping)
            self.stop_all(signal.SIGKILL if hurry else signal.SIGTERM)

    def run(self) -> int:
        """Until all is over; the exit status."""
        woken, waker = socket.socketpair()
        for sock in (woken, waker):
            sock.setblocking(False)
        for name in _SIGNALS:
            signal.signal(name, lambda *_: None)  # what counts is the byte in the wakeup socket
        signal.set_wakeup_fd(waker.fileno())
        self.selector.register(woken, selectors.EVENT_READ, None)
        if self.metrics_listener is not None:
            self.start(-1)
        for slot in range(self.config.workers):
            self.start(slot)
        while self.children or (self.restarts and not self.stopping):
            for key, _ in self.selector.select(self.seconds_to_wait()):
                if key.data is not None:
                    self.on_message(key.data)
                    continue
                try:
                    numbers = woken.recv(4096)
                except BlockingIOError:
                    numbers = b""
                for number in numbers:
                    self.on_signal(number)
            self.reap()
            self.enforce_deadlines()
            self.logs_wait = not retry_logs()
        return self.status

    def seconds_to_wait(self) -> float:
        """Return the seconds until the next deadline or restart, at most 60."""
        times = [child.deadline for child in self.children.values()] + [when for when, _ in self.restarts]
        return min(max(min(times, default=monotonic() + 60) - monotonic(), 0.0), 1.0 if self.logs_wait else 60.0)

    def enforce_deadlines(self) -> None:
        """Kill children that are past their deadline, start workers that are due."""
        now = monotonic()
        for child in self.children.values():
            if child.deadline <= now:
                if not child.stopping:
                    say(f"worker {child.pid} {'hangs' if child.ready else 'does not get ready'}: killing it")
                self.kill(child, signal.SIGKILL)
                child.deadline = now + 60
        due = [slot for when, slot in self.restarts if when <= now]
        self.restarts = [(when, slot) for when, slot in self.restarts if when > now]
        for slot in due:
            self.start(slot)

    def remove_sockets(self) -> None:
        """Remove the Unix sockets' files, once: what is bound there from now on is another server's."""
        paths, self.paths = self.paths, []
        for path in paths:
            try:
                os.unlink(path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    say(str(error))


def run(config: Config) -> int:
    """Serve as `config` says until a signal ends it; the exit status.  Raises ConfigError."""
    config.check()
    use_steady_streams()
    return Supervisor(config.settled()).run()


def check(config: Config) -> None:
    """Load everything as a worker would, without serving.  Raises ConfigError, or what the application raises."""
    config.check()
    config = config.settled()
    worker.tls_context(config)
    if config.patch:
        from weald import monkey

        monkey.patch_all()
    os.chdir(config.directory)
    sys.path.insert(0, os.getcwd())
    from weald.serve.accesslog import LogFile
    from weald.serve.config import load_application

    if config.access_log != "off":
        LogFile(config.access_log_file)
    load_application(config.application)
