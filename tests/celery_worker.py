"""Real Celery workers with weald's pool, a real Redis and a real RabbitMQ, for tests and `scripts/soak-celery`.

Used by: test_integrations_celery*.py, test_examples_celery.py.  Tasks are in celery_proj.py.

A worker takes a second or more to start and as long to end, so tests wait for neither: `Crew` starts the next test's
worker while one is tested, and checks all exit statuses at the module's end.  Deadlines are generous: they cost nothing
when tests pass, and a loaded machine is no failure.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import redis
from celery import Celery
from celery.utils.nodenames import gethostname
from conftest import require_program
from helpers import PATIENCE

HERE = Path(__file__).parent
TRIES = 25
databases = itertools.count(1)  # of redis_url's Redis


def wait_for(predicate, seconds=PATIENCE, what="it"):
    """The first true value of `predicate`."""
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.02)
    return value


def within(seconds, measure, tries=TRIES):
    """A time limit is kept if one of `tries` keeps it: on a loaded machine not all can, but broken code never does."""
    taken = []
    for _ in range(tries):
        taken.append(measure())
        if taken[-1] <= seconds:
            return
    raise AssertionError(f"never within {seconds} s: {taken}")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """The URL of a Redis for the tests, without the database's number."""
    program = require_program("redis-server", "redis-server")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--databases", "200"]
    server = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)

    def answers():
        assert server.poll() is None, "Redis did not start"
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    wait_for(answers, what="Redis")
    yield f"redis://127.0.0.1:{port}"
    client.close()
    server.terminate()
    server.wait(PATIENCE)


class Worker:
    """A Celery worker with weald's pool, in databases of its own; `app` sends it tasks.  It may not be ready yet."""

    def __init__(
        self, redis_url, log, *args, concurrency=20, broker=None, command=None, environ=None, queue=None, alias=False,
        **settings,
    ):
        self.notes_url = f"{redis_url}/0"
        self.broker = broker or f"{redis_url}/{next(databases)}"
        self.backend = f"{redis_url}/{next(databases)}"
        self.queue = queue
        self.destination = None
        self.app = Celery("client", broker=self.broker, backend=self.backend, set_as_current=False)
        if self.broker.startswith("amqp"):
            # Otherwise `send` returns before the message is on RabbitMQ's disk, and a RabbitMQ killed then loses it.
            self.app.conf.broker_transport_options = {"confirm_publish": True}
        self.notes = redis.Redis.from_url(self.notes_url)
        self.log = log
        if queue is not None:
            # A name of its own: another worker of that name would be refused the queue for remote control.
            args = ("-Q", queue, "-n", f"{queue}@%h", *args)
            self.destination = [f"{queue}@{gethostname()}"]  # others on the broker would answer, too
            settings["task_default_queue"] = queue
        lean = ["--without-mingle", "--without-gossip", "-l", "INFO"]
        self.arguments = ["-A", "celery_proj", "worker", *lean, *args, "-c", str(concurrency)]
        if alias:  # Celery's gevent pool
            command = [sys.executable, "-m", "weald", "celery", *self.arguments, "-P", "gevent"]
        self.command = command or [sys.executable, "-m", "celery", *self.arguments, "-P", "custom"]
        self.environ = {
            **os.environ,
            "BROKER": self.broker,
            "BACKEND": self.backend,
            "NOTES": self.notes_url,
            "SETTINGS": json.dumps(settings),
            "CELERY_CUSTOM_WORKER_POOL": "weald.integrations.celery:TaskPool",
            **(environ or {}),
        }
        self.launch()

    def launch(self):
        self._mark = self.starts()
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                self.command, cwd=HERE, env=self.environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ready(self):
        """Wait until it is ready."""
        wait_for(lambda: self.starts() > self._mark or self.process.poll() is not None, what="the worker")
        assert self.process.poll() is None, self.text()
        return self

    def starts(self):
        """How often it has become ready."""
        return self.text().count(" ready.")

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def send(self, name, *args, **options):
        if self.queue is not None:
            options.setdefault("queue", self.queue)
        return self.app.send_task(name, args, **options)

    def noted(self, key):
        return [value.decode() for value in self.notes.lrange(key, 0, -1)]

    def ask(self, command, *args):
        """Ask again if there is no answer: a worker that has just started may not listen yet."""
        self.ready()
        for timeout in (1.5,) * 6 + (10,) * 4:
            try:
                inspect = self.app.control.inspect(self.destination, timeout=timeout, limit=1)
                answers = getattr(inspect, command)(*args)
            except ConnectionError:  # the client's own was broken
                answers = None
            if answers:
                return next(iter(answers.values()))
        raise AssertionError(f"no answer to {command}\n{self.text()[-3000:]}")

    def pool(self):
        return self.ask("stats")["pool"]

    def queued(self):
        """How many messages are in the queue and how many of the worker's are not acknowledged (Redis)."""
        client = redis.Redis.from_url(self.broker)
        return client.llen("celery"), client.hlen("unacked")

    def connections(self):
        """Last commands of its connections to Redis."""
        monitor, process = redis.Redis.from_url(self.notes_url), psutil.Process(self.process.pid)
        ports = {connection.laddr.port for connection in process.net_connections("tcp")}
        found = [client for client in monitor.client_list() if int(client["addr"].rpartition(":")[2]) in ports]
        monitor.close()
        return found

    def tell(self, number):
        """Once it is ready: before, Celery does not listen to signals."""
        self.ready()
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=PATIENCE):
        """The exit status."""
        if self.process.poll() is None:
            self.tell(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.app.close()
        self.notes.close()


def skipped(item):
    mark = item.get_closest_marker("skipif")
    return mark is not None and any(mark.args)


class Crew:
    """The workers of a module's tests: those that a test is marked with are started while the test before it runs."""

    def __init__(self, redis_url, folder, items):
        self.redis_url, self.folder = redis_url, folder
        self.waiting = [item for item in items if item.get_closest_marker("worker") and not skipped(item)]
        self.launched = {}
        self.leaving = []

    def launch(self, name, *args, **options):
        return Worker(self.redis_url, self.folder / name.replace("/", "-"), *args, **options)

    def of(self, item):
        """The worker of test `item`; the next test's is on its way."""
        index = self.waiting.index(item)
        for one in self.waiting[index : index + 2]:
            if one.name not in self.launched:
                mark = one.get_closest_marker("worker")
                self.launched[one.name] = self.launch(one.name, *mark.args, **mark.kwargs)
        return self.launched.pop(item.name)

    def dismiss(self, worker, name):
        """Make it end, without waiting for that."""
        if worker.process.poll() is None:
            worker.tell(signal.SIGTERM)
            self.leaving.append((name, worker))
        else:
            worker.kill()

    def end(self):
        """Check that every dismissed worker ends, with status 0."""
        wrong = []
        for worker in self.launched.values():
            worker.kill()
        for name, worker in self.leaving:
            try:
                status = worker.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                status = "none: it did not end"
            worker.kill()
            if status != 0:
                wrong.append(f"the worker of {name} ended with status {status}:\n{worker.text()[-3000:]}")
        assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def crew(request, redis_url, tmp_path_factory):
    items = [item for item in request.session.items if item.path == request.path]
    RabbitMQ.early(request, tmp_path_factory)
    crew = Crew(redis_url, tmp_path_factory.mktemp("workers"), items)
    yield crew
    crew.end()


@pytest.fixture
def worker(request, crew):
    """The worker that the test is marked with: `@pytest.mark.worker(arguments of Worker)`."""
    worker = crew.of(request.node)
    yield worker
    crew.dismiss(worker, request.node.name)


@pytest.fixture
def start(request, crew):
    """Starts workers that end after the test."""
    workers = []

    def start(*args, **options):
        workers.append(crew.launch(f"{request.node.name}-{len(workers)}", *args, **options))
        return workers[-1]

    yield start
    for worker in workers:
        crew.dismiss(worker, request.node.name)


class Events:
    """The types of the events of a worker, by task, while the `with` block lasts."""

    def __init__(self, worker):
        self.worker, self.types = worker, {}

    def __enter__(self):
        self.connection = self.worker.app.connection_for_read()
        receiver = self.worker.app.events.Receiver(self.connection, handlers={"*": self.add})
        self.ready, self.done = threading.Event(), False

        def capture():
            with receiver.consumer_context(wakeup=False) as (connection, _, _):
                while not self.done:
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        pass
                    self.ready.set()  # kombu subscribes to Redis in the first of these

        self.thread = threading.Thread(target=capture)
        self.thread.start()
        assert self.ready.wait(PATIENCE)
        return self

    def add(self, event):
        if "uuid" in event:
            self.types.setdefault(event["uuid"], []).append(event["type"])

    def of(self, result, what):
        """Wait until there is an event of type `what` for the task."""
        wait_for(lambda: what in self.types.get(result.id, ()), what=what)

    def __exit__(self, *_):
        self.done = True
        self.thread.join()
        self.connection.close()


class Store:
    """A Redis, for results or as a broker, that can be stopped and started again with its data."""

    def __init__(self, folder):
        self.port = free_port()
        self.command = [require_program("redis-server", "redis-server"), "--port", str(self.port), "--bind",
                        "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=self.port)

        def answers():
            try:
                return client.ping()
            except redis.ConnectionError:
                return False

        wait_for(answers, what="the store")
        client.close()

    def stop(self):
        self.process.kill()
        self.process.wait()

    kill = stop

    def end(self):
        """As `stop`, but in peace."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def wait(self):
        """As RabbitMQ's method, which takes longer."""

    def client(self):
        return redis.Redis(port=self.port)

    def close(self, ports):
        """Close the connections from these ports."""
        with self.client() as client:
            for entry in client.client_list():
                if int(entry["addr"].rpartition(":")[2]) in ports:
                    client.client_kill_filter(addr=entry["addr"])

    def messages(self, app, queue):
        """How many are in `queue`, or taken from any queue and not acknowledged."""
        with self.client() as client:
            return client.llen(queue) + client.hlen("unacked")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="module")
def redis_broker(tmp_path_factory):
    """A Redis for messages alone."""
    store = Store(tmp_path_factory.mktemp("broker"))
    store.start()
    yield store
    store.stop()


class RabbitMQ:
    """A RabbitMQ for the tests, which can be killed and started again with its data."""

    name = "rabbitmq-server"
    only = None

    def __init__(self, folder):
        self.port, self.dist_port = free_port(), free_port()
        self.folder = folder
        real = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's own script changes the user
        self.command = [str(real) if real.exists() else self.name]
        self.environ = {
            **os.environ,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"weald{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }
        (folder / "plugins").write_text("[].")
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @classmethod
    def early(cls, request, tmp_path_factory):
        """The RabbitMQ of this run.  It starts slowly, so the first Celery test starts it if a later one needs it."""
        if cls.only is None and any("rabbitmq" in getattr(item, "fixturenames", ()) for item in request.session.items):
            require_program(cls.name, cls.name)
            cls.only = cls(tmp_path_factory.mktemp("rabbitmq"))
            cls.only.start()
            request.config.add_cleanup(cls.only.kill)
        return cls.only

    def start(self):
        with (self.folder / "out").open("a") as out:
            self.process = subprocess.Popen(
                self.command, env=self.environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self):
        from kombu import Connection

        def answers():
            assert self.process.poll() is None, (self.folder / "out").read_text()
            try:
                with Connection(self.url, connect_timeout=2) as connection:
                    connection.connect()
                return True
            except OSError:
                return False

        wait_for(answers, 120, "RabbitMQ")

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def end(self):
        """As `kill`, but in peace."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def control(self, *arguments):
        """Run rabbitmqctl."""
        program = str(Path(self.command[0]).with_name("rabbitmqctl")) if "/" in self.command[0] else "rabbitmqctl"
        done = subprocess.run([program, *arguments], env=self.environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self, ports):
        """Close the connections from these ports."""
        self.control("eval", f"""[rabbit_networking:close_connection(Pid, <<"on purpose">>)
            || Pid <- rabbit_networking:connections(),
               [{{peer_port, Port}}] <- [rabbit_reader:info(Pid, [peer_port])],
               lists:member(Port, {sorted(ports)})].""")

    def messages(self, app, queue):
        """How many are ready in `queue`."""
        with app.connection_for_read() as connection:
            return connection.default_channel.queue_declare(queue, passive=True).message_count


@pytest.fixture(scope="module")
def rabbitmq(request, tmp_path_factory):
    server = RabbitMQ.early(request, tmp_path_factory)
    server.wait()
    return server


def connected(sock):
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class Proxy:
    """Passes TCP connections on to a port; `drop` cuts all of them.  While `open` is clear, no data passes."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        self.open = threading.Event()
        self.open.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.sockets += [client, server]
            threading.Thread(target=self.serve, args=(client, server), daemon=True).start()

    def serve(self, client, server):
        back = threading.Thread(target=self.copy, args=(server, client), daemon=True)
        back.start()
        self.copy(client, server)
        back.join()
        client.close()
        server.close()

    def copy(self, source, target):
        try:
            while data := source.recv(65536):
                self.open.wait()
                target.sendall(data)
        except OSError:
            pass
        for sock in source, target:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def drop(self):
        sockets, self.sockets = self.sockets, []
        for sock in sockets[1::2]:  # `copy` ends the other, when what the server has sent has arrived
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def ports(self):
        """Of its ends of the connections to the server, the oldest first."""
        return [sock.getsockname()[1] for sock in self.sockets[1::2] if sock.fileno() >= 0 and connected(sock)]

    def close(self):
        self.listener.close()
        self.open.set()
        self.drop()
