"""The parent process of `weald serve`: binds, forks the workers, and keeps them: restarts, reloads, stops.

Called by: command.py.  It does not load the application (except with `preload`), so each worker that it forks
loads the current code.  It runs no event loop of weald's, but waits in a selector.

Invariants:
- The parent holds the listeners, which all workers share.  So no connection that the kernel has accepted is reset, and
  the others take the connections that a busy worker does not.
- A worker is stopped only when its successor is ready.  A successor that cannot start changes nothing.
- A child that is stopped has ended after `graceful_timeout` and three seconds.
- If the system refuses something (a fork, a descriptor, a line in a log), the service goes on and tries again.
- Functions that patching makes wait or yield are called by their originals, because preloading patches this process.

Long because signals, deadlines and messages of children all change the one state that a Supervisor has.
"""

import atexit
import errno
import os
import random
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from time import monotonic

from weald import __version__
from weald._base.originals import get_original
from weald._core import report
from weald.serve import errorlog, listeners, systemd, worker
from weald.serve.config import Config, ConfigError
from weald.serve.listeners import describe, parse_bind, refuse_newcomers
from weald.serve.metrics import Metrics
from weald.serve.process import become, fork, open_error_log, remove_pid_file, use_steady_streams, write_pid_file
from weald.serve.syslog import Syslog
from weald.serve.tls import tls_context
from weald.serve.upgrade import Handover, start_program

__all__ = ["run"]

_waitpid, _signal = get_original("os", "waitpid"), get_original("signal", "signal")
_Selector = get_original("selectors", "DefaultSelector")

_YOUNG = 10.0  # seconds: a worker that dies sooner is replaced after a pause
_PAUSE = 1.0
_MORE_WORKERS = 8  # that SIGTTIN may add
_EXIT = 3.0  # seconds for a worker's exit functions, when its requests have taken all of `graceful_timeout`
_SYSTEMD = "systemd"  # the name of its sockets when they are handed on
_METRICS = "metrics "  # the prefix of the names of the metrics' listeners
_OWN_END = 2.0  # seconds by which a worker that hangs should have ended itself before it is killed from here
_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGALRM, signal.SIGWINCH),
)
# They would end or stop this process if they came before it serves; then they are seen to.
_LATER = tuple(number for number in _SIGNALS if number not in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
# By workers: Ctrl-C reaches the whole group of processes, and the parent tells them what to do about it.
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


def say(text: str, level: str = "info") -> None:
    """Write a line to standard error."""
    errorlog.log(level, text)


@dataclass(eq=False)
class Child:
    """A forked process."""

    slot: int  # -1: the one that serves the metrics
    pid: int
    control: socket.socket
    generation: int  # the number of the last reload for which it has started, or was given a successor
    begun: float
    deadline: float  # when to kill it, if it is not ready, shows no sign of life or has not ended by then
    replaces: "Child | None" = None
    ready: bool = False
    stopping: bool = False
    reopens: bool = False  # whether it is to open its logs anew once it is ready
    next_try: float = 0.0  # when it may be given a successor that it asks for
    successor: "Child | None" = None


class Supervisor:
    """The parent process: holds the listeners, and starts, watches, replaces and stops the workers."""

    def __init__(self, config: Config, early: list[int]) -> None:
        self.config = config
        self.early = early  # signals that have come before `run`
        try:
            inherited = systemd.inherited_sockets()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the sockets from systemd cannot be used: {error}") from None
        self.handover = Handover()  # from the process that has started this one in its place
        inherited = inherited or self.handover.take(_SYSTEMD)
        self.listeners = list(inherited)
        self.named = {_SYSTEMD: list(inherited)} if inherited else {}  # all listeners, by what they are called
        self.own_listeners: list[socket.socket] = []  # those that end with us
        self.paths: dict[str, tuple[int, int]] = {}  # of our Unix sockets, and the files' device and number
        self.metrics_listeners: list[socket.socket] = []
        most = config.workers + _MORE_WORKERS
        try:
            self.bind(() if inherited else config.binds)
            # The stacks of workers that took too long: each worker writes them itself, at its end.
            self.stacks = [os.memfd_create(f"weald-worker-{slot}") for slot in range(most)]
            self.metrics = Metrics(most)
        except OSError as error:
            self.give_up()
            raise ConfigError(f"{config.workers} workers are too many: {error.strerror or error}") from None
        except BaseException:
            self.give_up()
            raise
        self.handover.close_rest()
        self.next_program = 0  # the process that is to take our place
        self.resting = False  # whether the workers have been stopped, while the next program serves
        self.children: dict[int, Child] = {}
        self.selector: selectors.BaseSelector  # made late: patching reaches those that are there
        self.restarts: list[tuple[float, int]] = []  # when to start a slot's worker again
        self.retry_at = 0.0  # when to try again what the system has refused; 0: nothing has been
        self.failures = 0  # workers in a row that did not start
        self.generation = 0  # counts the reloads
        self.stopping = False
        self.announced = False
        self.status = 0
        self.watchdog = systemd.watchdog_interval()
        self.watchdog_at = 0.0
        self.reload_began = 0.0  # 0: none is under way
        self.kept = 0  # workers that go on because their successors did not start
        self.logs_wait = False  # whether there is something that could not be written yet
        self.applications: worker.Applications | None = None  # preloaded ones

    def bind(self, binds: Sequence[str]) -> None:
        """Take over the listeners of the process before this one, and bind the others.  Raises ConfigError."""
        config = self.config
        for bind in binds:
            found = self.handover.take(bind) or listeners.bind_address(bind, config.backlog, int(config.socket_mode, 8))
            self.named[bind] = found
            self.listeners += found
            address = parse_bind(bind)
            if not isinstance(address, int):  # a descriptor that was open already belongs to another process, too
                self.own_listeners += found
            if isinstance(address, str) and not address.startswith("\0"):  # an abstract name is no file
                with suppress(FileNotFoundError):  # if the process before this one has lost it
                    self.paths[address] = listeners.file_id(address)
        if config.metrics:
            name = _METRICS + config.metrics
            found = self.handover.take(name) or listeners.bind_address(config.metrics, config.backlog)
            self.metrics_listeners = self.named[name] = found

    def give_up(self) -> None:
        """The service does not start: remove the sockets' files, unless the process before this one goes on."""
        if self.handover.parent_is_there():
            self.paths.clear()
        self.remove_sockets()

    def preload(self) -> None:
        """Load the application for all workers to come.  Raises ConfigError, or what it raises."""
        self.applications = worker.preload(self.config)
        if _native_threads() > 1:
            say("the application has started threads as it was loaded: with --preload, no worker has them", "warning")

    # ---------------------------------------------------------------- children

    def start(self, slot: int, replaces: Child | None = None) -> None:
        """Fork a worker for `slot` (-1: the process that serves the metrics), a successor of `replaces` perhaps."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return self.cannot_start(slot, replaces, error)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = fork(_SIGNALS, _IGNORED)
        except OSError as error:
            ours.close()
            theirs.close()
            return self.cannot_start(slot, replaces, error)
        if pid == 0:
            self._become_child(slot, ours, theirs)
        theirs.close()
        ours.setblocking(False)
        now = monotonic()
        patience = self.config.boot_timeout + _OWN_END if self.config.boot_timeout else 1e30
        child = Child(slot, pid, ours, self.generation, now, now + patience, replaces)
        if replaces is not None:
            replaces.successor = child
        self.children[pid] = child
        self.selector.register(ours, selectors.EVENT_READ, child)

    def cannot_start(self, slot: int, replaces: Child | None, error: OSError) -> None:
        """Try again later: the system has refused a process, or a resource that it needs."""
        say(f"cannot start a worker, and will try again: {error.strerror or error}", "error")
        when = monotonic() + _PAUSE
        if replaces is None:
            self.restarts.append((when, slot))
        else:
            replaces.generation = min(replaces.generation, self.generation - 1)  # as if not tried
            replaces.next_try = self.retry_at = when

    def _become_child(self, slot: int, ours: socket.socket, theirs: socket.socket) -> None:
        """In the child: never returns."""
        status = 1
        try:
            self.selector.close()
            ours.close()
            for child in self.children.values():
                child.control.close()
            random.seed()
            if slot < 0:
                status = worker.serve_metrics(self.metrics_listeners, theirs, self.metrics)
            else:
                for sock in self.metrics_listeners:
                    sock.close()
                stack = self.stacks[slot]
                for fd in self.stacks:
                    if fd != stack:
                        os.close(fd)
                status = worker.run(self.config, self.listeners, theirs, self.metrics, slot, stack, self.applications)
        except BaseException:
            report(traceback.format_exc())
        finally:
            # Exit functions that flush data (Sentry, OpenTelemetry, logging) get to run; stop() bounds the time.
            try:
                atexit._run_exitfuncs()
            except BaseException:
                report(traceback.format_exc())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def stop(self, child: Child, number: int = signal.SIGTERM) -> None:
        """Send the child a signal; it is killed if it has not ended when its time is up."""
        child.stopping = True
        child.deadline = monotonic() + (self.config.graceful_timeout if child.slot >= 0 else 0) + _EXIT
        self.kill(child, number)

    def kill(self, child: Child, number: int) -> None:
        """Send the child signal `number`, if it still exists."""
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def on_message(self, child: Child) -> None:
        """Read a message of a child."""
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
            watched = self.config.timeout and child.slot >= 0
            child.deadline = monotonic() + self.config.timeout + _OWN_END if watched else 1e30
        if b"r" in said:
            child.ready = True
            self.failures = 0
            if child.reopens:
                self.kill(child, signal.SIGUSR1)
            if child.replaces is not None:
                say(f"worker {child.pid} takes over from {child.replaces.pid}")
                self.stop(child.replaces)
                child.replaces.successor = None
                child.replaces = None
            self.start_successors()
            self.announce()
        if b"c" in said and not child.stopping and not self.stopping and child.generation == self.generation:
            self.reload()
        free = not child.stopping and child.successor is None and not self.stopping
        if b"x" in said and free and monotonic() >= child.next_try:
            say(f"worker {child.pid} has served its time")
            self.start(child.slot, child)

    def announce(self) -> None:
        """When all workers are ready, report it, the first time and after each reload."""
        if self.stopping or any(not child.ready and not child.stopping for child in self.children.values()):
            return
        if not self.resting:
            systemd.notify("READY=1", f"MAINPID={os.getpid()}")
        if self.reload_began:
            took = monotonic() - self.reload_began
            self.reload_began = 0.0
            kept = f"; {self.kept} go on with the code of before" if self.kept else ""
            say(f"reloaded in {took:.1f} s{kept}")
        if not self.announced:
            self.announced = True
            scheme = "https" if self.config.certfile else "http"
            where = ", ".join(describe(sock, scheme) for sock in self.listeners)
            for sock in self.metrics_listeners:
                where += f", metrics at {describe(sock, 'http')}/metrics"
            protocol = "HTTP/1.1 and HTTP/2" if self.config.http2 and find_spec("h2") else "HTTP/1.1"
            count = f"{self.config.workers} worker{'s' * (self.config.workers > 1)}"
            say(f"{__version__}, {self.config.application}: {count} at {where} ({protocol}; help: weald serve --help)")

    def reap(self) -> None:
        """Handle the end of all children that have ended."""
        while True:
            try:
                pid, status = _waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.next_program:
                self.on_next_program_exit(os.waitstatus_to_exitcode(status))
            child = self.children.pop(pid, None)
            if child is not None:
                self.on_exit(child, os.waitstatus_to_exitcode(status))

    def on_exit(self, child: Child, code: int) -> None:
        """Handle the end of a child."""
        try:
            self.selector.unregister(child.control)
        except (KeyError, ValueError):
            pass
        child.control.close()
        if child.successor is not None:
            child.successor.replaces = None
        if child.replaces is not None:
            child.replaces.successor = None
        where = self.where_it_was(child.slot)
        if child.stopping:
            if self.children and not child.ready:
                self.announce()  # the others may have been waiting for it
            return
        if where:
            what = "hangs" if child.ready else "does not get ready"
            say(f"worker {child.pid} {what}, and has ended; it was here:\n{where}", "error")
        how = f"signal {-code}" if code < 0 else f"status {code}"
        now = monotonic()
        pause = _PAUSE if now - child.begun < _YOUNG else 0.0
        if not child.ready:
            self.failures += 1
            pause = min(0.5 * self.failures, 30.0)
            if child.replaces is not None:
                child.replaces.next_try = now + pause
                say(f"a new worker did not start ({how}); the old one goes on", "error")
                self.kept += 1
                self.announce()
                return
            if not self.announced:
                say(f"a worker did not start ({how})", "error")
                self.status = 1
                self.stop_all()
                return
        say(f"worker {child.pid} died ({how})", "error")
        if not self.stopping and child.successor is None:
            self.restarts.append((now + pause, child.slot))

    def where_it_was(self, slot: int) -> str:
        """The stacks of the worker that has ended in `slot`, if it took too long."""
        if slot < 0:
            return ""
        fd = self.stacks[slot]
        said = os.pread(fd, 1 << 16, 0).decode(errors="replace").rstrip()
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        return said

    # ---------------------------------------------------------------- signals and reloads

    def reload(self) -> None:
        """Replace each worker by one with the current code; start them again, if they were stopped for an upgrade."""
        if self.resting:
            self.resting = False
            self.start_all()
            return
        say("reloading" if self.applications is None else "new workers, with the application that was preloaded")
        self.reload_began, self.kept = monotonic(), 0
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

    def reopen_error_log(self) -> None:
        """Open it again, after it was renamed.  If that fails, the old one stays."""
        try:
            open_error_log(self.config.error_log)
        except ConfigError as error:
            say(str(error))

    def change_workers(self, change: int) -> None:
        """One worker more, or one fewer."""
        count = self.config.workers + change
        if not 1 <= count <= len(self.stacks):
            say(f"{self.config.workers} workers it stays")
            return
        self.config = replace(self.config, workers=count)
        say(f"{count} worker{'s' * (count > 1)} from now on")
        if change > 0:
            self.start(count - 1)
            return
        self.restarts = [(when, slot) for when, slot in self.restarts if slot < count]
        for child in list(self.children.values()):
            if child.slot >= count and not child.stopping:
                self.stop(child)

    def start_next_program(self) -> None:
        """Start the program that takes over, with the listeners.  If it fails, this one goes on."""
        if self.next_program or self.handover.parent_is_there():
            other = self.next_program or self.handover.parent
            say(f"no further program is started while {other} is there, too")
            return
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            self.next_program = start_program(self.named, _SIGNALS)
        except OSError as error:
            say(f"cannot start another program: {error.strerror or error}", "error")
            return
        say(f"process {self.next_program} starts beside this one, {os.getpid()}")

    def on_next_program_exit(self, code: int) -> None:
        """Handle the end of the program that was to take over."""
        how = f"signal {-code}" if code < 0 else f"status {code}"
        say(f"process {self.next_program} has ended ({how}); this one goes on")
        self.next_program = 0
        if self.resting and not self.stopping:
            self.reload()

    def rest(self) -> None:
        """Stop the workers while the next program serves, and be ready to start them again."""
        say(f"the workers stop; SIGHUP to {os.getpid()} starts them again, SIGTERM ends it")
        self.resting = True
        self.restarts.clear()
        for child in list(self.children.values()):
            if not child.stopping:
                self.stop(child)

    def stop_all(self, number: int = signal.SIGTERM) -> None:
        """Close the listeners and send each child signal `number`."""
        if not self.stopping:
            systemd.notify(f"MAINPID={self.next_program}" if self.next_program else "STOPPING=1")
        self.stopping = True
        # With another program there, the sockets are its own as well, and go on.
        shared = self.next_program != 0 or self.handover.parent_is_there()
        self.restarts.clear()
        # New connections are refused from here on; the workers take what is in their backlogs.
        for sock in () if shared else self.own_listeners:
            if sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
                refuse_newcomers(sock)
        for sock in (*self.listeners, *self.metrics_listeners):
            sock.close()
        if shared:
            self.paths.clear()
        self.remove_sockets()
        for child in list(self.children.values()):
            if not child.stopping or number != signal.SIGTERM:
                self.stop(child, number)

    def on_signal(self, number: int) -> None:
        """Handle signal `number`."""
        if number == signal.SIGHUP and not self.stopping:
            self.reload()
        elif number == signal.SIGUSR2 and not self.stopping:
            self.start_next_program()
        elif number == signal.SIGWINCH and self.next_program and not self.stopping and not self.resting:
            self.rest()
        elif number in (signal.SIGTTIN, signal.SIGTTOU) and not self.stopping and not self.resting:
            self.change_workers(1 if number == signal.SIGTTIN else -1)
        elif number == signal.SIGUSR1:
            self.reopen_error_log()
            for child in self.children.values():
                if child.ready:
                    self.kill(child, signal.SIGUSR1)
                else:  # it has no handler yet, and may have opened the old files
                    child.reopens = True
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            hurry = number == signal.SIGQUIT or (number == signal.SIGINT and self.stopping)
            self.stop_all(signal.SIGKILL if hurry else signal.SIGTERM)

    def start_all(self) -> None:
        """Start the workers, and the process that serves the metrics."""
        if self.metrics_listeners:
            self.start(-1)
        for slot in range(self.config.workers):
            self.start(slot)

    def run(self) -> int:
        """Run until all children have ended; returns the exit status."""
        self.selector, (woken, waker) = _Selector(), socket.socketpair()
        for sock in (woken, waker):
            sock.setblocking(False)
        for name in _SIGNALS:
            _signal(name, lambda *_: None)  # only the byte in the wakeup socket matters
        signal.set_wakeup_fd(waker.fileno())
        self.selector.register(woken, selectors.EVENT_READ, None)
        self.start_all()
        for number in self.early:
            self.on_signal(number)
        while self.children or ((self.restarts or self.resting) and not self.stopping):
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
            self.logs_wait = not errorlog.retry()
            self.look_after_parent()
        return self.status

    def seconds_to_wait(self) -> float:
        """Return the seconds until the next deadline or restart, at most 60."""
        times = [child.deadline for child in self.children.values()] + [when for when, _ in self.restarts]
        if self.retry_at:
            times.append(self.retry_at)
        if self.watchdog:
            times.append(self.watchdog_at)
        most = 1.0 if self.logs_wait or self.handover.parent else 60.0
        return min(max(min(times, default=monotonic() + 60) - monotonic(), 0.0), most)

    def look_after_parent(self) -> None:
        """Take the place of the process that has started this one, once that has ended."""
        if self.handover.parent and not self.handover.parent_is_there():
            say(f"process {self.handover.parent} has ended; this one, {os.getpid()}, goes on alone")
            self.handover.parent = 0
            systemd.notify("READY=1", f"MAINPID={os.getpid()}")
            if self.config.pid_file:
                remove_pid_file(self.config.pid_file + ".2")
                try:
                    write_pid_file(self.config.pid_file)
                except ConfigError as error:
                    say(str(error))

    def enforce_deadlines(self) -> None:
        """Kill children that are past their deadline, start workers that are due."""
        now = monotonic()
        if self.watchdog and now >= self.watchdog_at:
            systemd.notify("WATCHDOG=1")
            self.watchdog_at = now + self.watchdog
        for child in self.children.values():
            if child.deadline <= now:
                if not child.stopping:
                    say(f"worker {child.pid} {'hangs' if child.ready else 'does not get ready'}: killing it", "error")
                self.kill(child, signal.SIGKILL)
                child.deadline = now + 60
        due = [slot for when, slot in self.restarts if when <= now]
        self.restarts = [(when, slot) for when, slot in self.restarts if when > now]
        for slot in due:
            self.start(slot)
        if self.retry_at and self.retry_at <= now:
            self.retry_at = 0.0
            self.start_successors()

    def remove_sockets(self) -> None:
        """Remove the Unix sockets' files, once: later files of that name belong to another server."""
        paths, self.paths = self.paths, {}
        for path, ours in paths.items():
            try:
                if listeners.file_id(path) == ours:  # else somebody has put another one there
                    os.unlink(path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    say(str(error))


def run(config: Config) -> int:
    """Serve by `config` until a signal ends it; returns the exit status.  Raises ConfigError."""
    early: list[int] = []
    for number in _LATER:
        _signal(number, lambda number, _: early.append(number))
    config.check()
    use_steady_streams()
    errorlog.choose(config.log_level, config.error_log_format == "json")
    config = config.settled()
    tls_context(config)  # a bad certificate is reported once, not by each worker
    syslog = None
    if config.log_syslog is not None and config.error_log == "-":
        syslog = Syslog(config.log_syslog, config.log_syslog_facility, config.log_syslog_tag)
    supervisor = Supervisor(config, early)
    try:
        open_error_log(config.error_log)
        # With the sockets open; what is written from here on, and what the workers load, is the user's.
        if config.umask is not None:
            os.umask(int(config.umask, 8))
        if config.pid_file:
            write_pid_file(config.pid_file + ".2" if supervisor.handover.parent_is_there() else config.pid_file)
        become(config.user, config.group)
        if config.preload:
            supervisor.preload()
        if syslog is not None:
            errorlog.use_syslog(syslog)
        return supervisor.run()
    except BaseException:
        supervisor.give_up()
        raise
    finally:
        if config.pid_file:
            remove_pid_file(config.pid_file)
            remove_pid_file(config.pid_file + ".2")


def check(config: Config) -> None:
    """Load everything as a worker would, without serving.  Raises ConfigError, or what the application raises."""
    config.check()
    config = config.settled()
    tls_context(config)
    for bind in listeners.check_addresses(
        (*config.binds, *([config.metrics] if config.metrics else [])), config.backlog
    ):
        say(f"{bind} is in use, by the running service perhaps")
    worker.prepare(config)
    from weald.serve.accesslog import check_writable, line_maker
    from weald.serve.config import load_all

    if config.access_log != "off":
        line_maker(config.access_log)
        check_writable(config.access_log_file)
    check_writable(config.error_log)
    worker.Hooks(config.hooks)
    load_all(config)


def _native_threads() -> int:
    """How many native threads this process has; 0 if the system does not tell (there is no /proc)."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
