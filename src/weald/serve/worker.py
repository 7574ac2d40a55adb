"""A worker of `weald serve`: loads the application, serves, and stops in order.

Called by: supervisor, in a forked child, with the listeners and a socket to the parent; `prepare` and `preload` in the
parent.  On that socket it sends single bytes: `r` it is ready, `.` its loop turns, `x` it asks for a successor, `c`
files have changed.  If the socket ends, so has the parent, and the worker stops.
"""

import faulthandler
import gc
import os
import random
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from weald._core import monotonic, report
from weald.http.forwarded import Trusted
from weald.serve import errorlog
from weald.serve.changes import Watch
from weald.serve.config import Config, load_all, load_module
from weald.serve.errors import ConfigError
from weald.serve.metrics import BEAT, BUCKETS, LAG, LAG_MAX, MEMORY, STARTS, Metrics
from weald.serve.process import open_error_log
from weald.serve.tls import tls_context

if TYPE_CHECKING:
    from weald.serve.accesslog import AccessLog

__all__ = ["Hooks", "prepare", "preload", "run", "serve_metrics"]

Applications = dict[str, tuple[Any, str]]  # and their interfaces, by prefix

_PAGE = resource.getpagesize()
_SERVERS = ("weald.serve.wsgi", "weald.serve.asgi")  # imported by name, after the process is patched

# From Python 3.15 on traceback imports what it prints with when it first prints; that needs a descriptor to spare.
try:
    raise RuntimeError
except RuntimeError:
    traceback.format_exc()


def run(
    config: Config,
    listeners: list[socket.socket],
    parent: socket.socket,
    metrics: Metrics,
    slot: int,
    stack: int,
    applications: Applications | None = None,
) -> int:
    """Serve until told to stop; returns the process's exit status.

    `stack` is the descriptor of a file for the process's stacks, written if a timeout ends it.  `applications` are
    those that the parent process has loaded.
    """
    if config.boot_timeout:
        faulthandler.dump_traceback_later(config.boot_timeout, exit=True, file=stack)
    if applications is None:
        prepare(config)
    watch = Watch() if config.reload and slot == 0 else None  # one is enough, and all would ask for a reload each
    try:
        hooks = Hooks(config.hooks)
        hooks.call("post_fork", slot)
        worker = Worker(config, listeners, parent, metrics, slot, applications or load_all(config), stack)
        worker.start(watch)
        hooks.call("worker_ready", slot)
    except ConfigError as error:
        report(f"weald: {error}\n")
        return 1
    except Exception:
        report(traceback.format_exc())
        return 1
    status = worker.wait()
    try:
        hooks.call("worker_exit", slot)
    except Exception:
        report(traceback.format_exc())
    return status


def prepare(config: Config) -> None:
    """Prepare this process for loading an application: patch, change to its folder, extend sys.path."""
    if config.patch:
        from weald import monkey

        monkey.patch_all()
    os.chdir(config.directory)
    sys.path.insert(0, os.getcwd())


def preload(config: Config) -> Applications:
    """Load the applications in the parent process, and keep its children's garbage collectors from their objects.

    A collector marks each object that it visits, which would copy the memory page.  Raises ConfigError, or what the
    applications raise.
    """
    gc.disable()  # objects freed now would leave gaps in memory pages, to which children would write
    try:
        if config.boot_timeout:
            faulthandler.dump_traceback_later(config.boot_timeout, exit=True)
        prepare(config)
        applications = load_all(config)
        for name in _SERVERS:
            import_module(name)
        faulthandler.cancel_dump_traceback_later()
        gc.freeze()
        return applications
    finally:
        gc.enable()


class Hooks:
    """The functions of the module that --hooks names, each called with the worker's slot, from 0 on.

    Raises ConfigError if there is no such module.
    """

    names = ("post_fork", "worker_ready", "worker_exit")

    def __init__(self, module: str | None) -> None:
        self._functions = {}
        if module:
            found = load_module(module)
            self._functions = {name: getattr(found, name) for name in self.names if hasattr(found, name)}
            if not self._functions:
                raise ConfigError(f"--hooks: {module} has none of {', '.join(self.names)}")

    def call(self, name: str, slot: int) -> None:
        """Call the function of that name, if there is one.  Raises what it raises."""
        if name in self._functions:
            self._functions[name](slot)


class Worker:
    """The servers of one process, its access log, and the conditions that end it."""

    def __init__(
        self,
        config: Config,
        listeners: list[socket.socket],
        parent: socket.socket,
        metrics: Metrics,
        slot: int,
        applications: Applications,
        stack: int,
    ) -> None:
        from weald import socket as cooperative
        from weald._core import Event
        from weald.serve.fair import Share

        self.config, self.slot = config, slot
        self.row = row = metrics.row(slot)
        self.stack = stack
        self.stopping = Event()
        self.parent = cooperative.socket(fileno=parent.detach())
        self.retire_at = config.max_requests + random.randint(0, config.max_requests_jitter)
        self.log: AccessLog | None = access_log(config)
        options: dict[str, Any] = {}
        # Not having h2 is no reason to refuse HTTP/1.1.
        http2 = config.http2 and find_spec("h2") is not None
        context = tls_context(config, http2)
        if context is not None:
            options["ssl_context"] = context
        share = Share(metrics, slot)
        balancers = Trusted(config.proxy_protocol) if config.proxy_protocol is not None else None
        servers: Any
        if all(interface == "wsgi" for _, interface in applications.values()) and not config.mounts:
            servers = import_module(_SERVERS[0])
        else:
            servers = import_module(_SERVERS[1])
        self.lifespans: Any = servers.lifespans(applications, config)
        self.servers = servers.servers(
            applications, config, self.log, self.lifespans, listeners, (share, balancers), http2=http2, **options
        )
        for server in self.servers:
            server.http_state.count_in(row, BUCKETS)

    def start(self, watch: Watch | None) -> None:
        """Begin to accept, and tell the parent that this worker is ready; also when a file of `watch` has changed."""
        from weald._base.resident import Resident

        signal.signal(signal.SIGTERM, lambda *_: self.stopping.set())
        signal.signal(signal.SIGUSR1, lambda *_: self.reopen())
        if self.lifespans is not None:
            self.lifespans.start()
        for server in self.servers:
            server.start()
        self.row[STARTS] += 1
        self.row[BEAT] = monotonic()
        self.parent.sendall(b"r")
        Resident(self._watch_parent)
        Resident(self._watch_self)
        if watch is not None:
            Resident(partial(self._watch_files, watch))

    def served(self) -> int:
        """Return the number of responses so far."""
        return sum(server.http_state.served for server in self.servers)

    def reopen(self) -> None:
        """Open the logs' files again, after they were renamed."""
        # If one cannot be opened, the old file stays.
        try:
            open_error_log(self.config.error_log)
        except ConfigError as error:
            report(f"weald: {error}\n")
        try:
            if self.log is not None:
                self.log.reopen()
        except OSError as error:
            report(f"weald: cannot open the log anew: {error}\n")

    def _watch_files(self, watch: Watch) -> None:
        """Ask for a reload when a file of the application has changed."""
        from weald._core import sleep

        while True:
            path = watch.changed()
            if path is not None:
                report(f"weald: {path} has changed\n")
                try:
                    self.parent.sendall(b"c")
                except OSError:
                    return
            sleep(0.3, ref=False)

    def _watch_parent(self) -> None:
        try:
            while self.parent.recv(100):
                pass
        except OSError:
            pass
        self.stopping.set()

    def _watch_self(self) -> None:
        """Once a second: tell the parent that the loop turns, measure its lag, ask for a successor in time."""
        from weald._core import sleep

        config, row = self.config, self.row
        worst: list[float] = []
        # Opened once: when no descriptor is left, the parent must not take us for dead.
        statm = open_statm()
        while True:
            start = monotonic()
            if config.timeout:
                # A thread in C, which needs no GIL: it works whatever blocks this process, and if the parent is gone.
                faulthandler.dump_traceback_later(config.timeout, exit=True, file=self.stack)
            elif config.boot_timeout:
                faulthandler.cancel_dump_traceback_later()
            sleep(1.0, ref=False)
            lag = max(monotonic() - start - 1.0, 0.0)
            worst = [*worst[-59:], lag]
            row[LAG], row[LAG_MAX] = lag, max(worst)
            row[BEAT] = monotonic()
            row[MEMORY] = memory = resident(statm)
            old = (config.max_requests and self.served() >= self.retire_at) or (
                config.max_memory and memory > config.max_memory
            )
            errorlog.retry()
            if self.log is not None and config.log_syslog is not None:
                self.log.flush()
            try:
                self.parent.sendall(b"x" if old else b".")
            except OSError:
                self.stopping.set()

    def wait(self) -> int:
        """Wait until told to stop; then give requests under way up to `graceful_timeout` seconds to end."""
        from weald._core import spawn

        self.stopping.wait()
        end = monotonic() + self.config.graceful_timeout
        for draining in [spawn(server.drain, self.config.graceful_timeout) for server in self.servers]:
            draining.join()
        if self.lifespans is not None:
            self.lifespans.stop(max(end - monotonic(), 1.0))
        if self.log is not None:
            self.log.flush()
        return 0


def access_log(config: Config) -> "AccessLog | None":
    """Return the access log; None if there is none.  Raises ConfigError."""
    from weald.serve.accesslog import LogFile, SyslogLines
    from weald.serve.syslog import Syslog

    if config.access_log == "off":
        return None
    if config.log_syslog is not None and config.access_log_file == "-":
        return SyslogLines(Syslog(config.log_syslog, config.log_syslog_facility, config.log_syslog_tag, LogFile.limit))
    return LogFile(config.access_log_file)


def open_statm() -> int:
    """Open this process's /proc/…/statm, for `resident`; -1 where there is none (a chroot without /proc)."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def resident(statm: int) -> int:
    """Bytes of memory in use by the process whose /proc/…/statm is open as `statm`; for -1 the most it has used yet."""
    if statm < 0:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(os.pread(statm, 200, 0).split()[1]) * _PAGE


def serve_metrics(listeners: list[socket.socket], parent: socket.socket, metrics: Metrics) -> int:
    """The process behind /metrics."""
    from weald import socket as cooperative
    from weald._base.resident import Resident
    from weald.pywsgi import WSGIServer
    from weald.serve.metrics import application

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    servers = [WSGIServer(listener, application(metrics), log=None) for listener in listeners]
    for server in servers:
        server.start()
    control = cooperative.socket(fileno=parent.detach())

    def watch() -> None:
        try:
            while control.recv(100):
                pass
        except OSError:
            pass
        os._exit(0)

    Resident(watch)
    control.sendall(b"r")
    servers[0].serve_forever()
    return 0
