"""A worker of `weald serve`: loads the application, serves, and stops in order.

Called by: supervisor, in a forked child, with the listeners and a socket to the parent.  On that socket it says, a byte
each: `r` ready, `.` still turning, `x` replace me.  Its end means that the parent is gone: the worker stops, too.
"""

import faulthandler
import os
import random
import resource
import signal
import socket
import ssl
import sys
import traceback
from importlib.util import find_spec
from typing import Any

from weald._core import monotonic, report, retry_logs
from weald.serve.config import Config, load_application
from weald.serve.errors import ConfigError
from weald.serve.metrics import BEAT, BUCKETS, LAG, LAG_MAX, MEMORY, STARTS, Metrics

__all__ = ["run", "serve_metrics"]

_PAGE = resource.getpagesize()

# From Python 3.15 on traceback imports what it prints with when it first prints; that needs a descriptor to spare.
try:
    raise RuntimeError
except RuntimeError:
    traceback.format_exc()


def run(
    config: Config, listeners: list[socket.socket], parent: socket.socket, metrics: Metrics, slot: int, stack: int
) -> int:
    """Serve until told to stop; the process's exit status.

    `stack` is the descriptor of a file that gets the process's stacks if it takes too long, which ends it.
    """
    if config.boot_timeout:
        faulthandler.dump_traceback_later(config.boot_timeout, exit=True, file=stack)
    if config.patch:
        from weald import monkey

        monkey.patch_all()
    os.chdir(config.directory)
    sys.path.insert(0, os.getcwd())
    try:
        application = load_application(config.application)
        worker = Worker(config, listeners, parent, metrics, slot, application, stack)
        worker.start()
    except ConfigError as error:
        report(f"weald: {error}\n")
        return 1
    except Exception:
        report(traceback.format_exc())
        return 1
    return worker.wait()


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return the context for the certificate that is configured, None if there is none.  Raises ConfigError."""
    if not config.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.certfile, config.keyfile, lambda: _password(config))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate {config.certfile} and its key cannot be used: {error}") from None
    return context


def _password(config: Config) -> str:
    """The key's password: asked for only if the key has one.  Raises ConfigError, so that nobody is prompted."""
    if not config.key_password_file:
        raise ConfigError(f"the key {config.keyfile or config.certfile} has a password: give it in --key-password-file")
    try:
        with open(config.key_password_file) as file:
            return file.readline().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"cannot read {config.key_password_file}: {error.strerror}") from None


class Worker:
    """The servers of one process, its access log, and what makes it end."""

    def __init__(
        self,
        config: Config,
        listeners: list[socket.socket],
        parent: socket.socket,
        metrics: Metrics,
        slot: int,
        application: Any,
        stack: int,
    ) -> None:
        from weald import socket as cooperative
        from weald._core import Event
        from weald.pywsgi import WSGIHandler
        from weald.serve.accesslog import FORMATS, LogFile
        from weald.serve.fair import FairServer, Share

        self.config = config
        self.row = row = metrics.row(slot)
        self.stack = stack
        self.stopping = Event()
        self.parent = cooperative.socket(fileno=parent.detach())
        self.retire_at = config.max_requests + random.randint(0, config.max_requests_jitter)
        self.log: LogFile | None = None
        handler_class = WSGIHandler
        if config.access_log != "off":
            self.log = log = LogFile(config.access_log_file)
            line = FORMATS[config.access_log]

            class Logging(WSGIHandler):
                def log_request(self) -> None:
                    log.write(line(self))

            handler_class = Logging
        options: dict[str, Any] = {}
        context = tls_context(config)
        if context is not None:
            options["ssl_context"] = context
        # Not having h2 is no reason to refuse HTTP/1.1.
        http2 = config.http2 and find_spec("h2") is not None
        many = {"wsgi.multiprocess": config.workers > 1}
        share = Share(metrics, slot)
        self.servers = [
            FairServer(
                share,
                listener,
                application,
                log=None,
                handler_class=handler_class,
                environ=dict(many),
                limits=config.limits,
                http2=http2,
                **options,
            )
            for listener in listeners
        ]
        for server in self.servers:
            server._common.count_in(row, BUCKETS)

    def start(self) -> None:
        """Begin to accept, and tell the parent that this worker is ready."""
        from weald._core import spawn

        signal.signal(signal.SIGTERM, lambda *_: self.stopping.set())
        signal.signal(signal.SIGUSR1, lambda *_: self.reopen())
        for server in self.servers:
            server.start()
        self.row[STARTS] += 1
        self.row[BEAT] = monotonic()
        self.parent.sendall(b"r")
        spawn(self._watch_parent)
        spawn(self._watch_self)

    def served(self) -> int:
        """Responses so far."""
        return sum(server._common.served for server in self.servers)

    def reopen(self) -> None:
        """Open the access log's file anew, after it was renamed."""
        if self.log is not None:
            self.log.reopen()

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
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        while True:
            start = monotonic()
            if config.timeout:
                # A thread in C, which needs no GIL: whatever holds this process up, and if the parent is gone.
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
            retry_logs()
            try:
                self.parent.sendall(b"x" if old else b".")
            except OSError:
                self.stopping.set()

    def wait(self) -> int:
        """Until told to stop; then let what is under way end, for `graceful_timeout` seconds at most."""
        from weald._core import spawn

        self.stopping.wait()
        for draining in [spawn(server.drain, self.config.graceful_timeout) for server in self.servers]:
            draining.join()
        if self.log is not None:
            self.log.flush()
        return 0


def resident(statm: int) -> int:
    """Bytes of memory in use by the process whose /proc/…/statm is open as `statm`."""
    return int(os.pread(statm, 200, 0).split()[1]) * _PAGE


def serve_metrics(listener: socket.socket, parent: socket.socket, metrics: Metrics) -> int:
    """The process behind /metrics."""
    from weald import socket as cooperative
    from weald._core import spawn
    from weald.pywsgi import WSGIServer
    from weald.serve.metrics import application

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    server = WSGIServer(listener, application(metrics), log=None)
    server.start()
    control = cooperative.socket(fileno=parent.detach())

    def watch() -> None:
        try:
            while control.recv(100):
                pass
        except OSError:
            pass
        os._exit(0)

    spawn(watch)
    control.sendall(b"r")
    server.serve_forever()
    return 0
