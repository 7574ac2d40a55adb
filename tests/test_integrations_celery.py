"""weald's Celery pool: real workers, a real Redis and a real RabbitMQ.

Most tests share one worker (`shared`); those that end or load theirs start their own.  Tasks are in
celery_proj.py.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import psutil  # noqa: E402
import redis  # noqa: E402
from celery import Celery  # noqa: E402
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError  # noqa: E402
from conftest import require_program  # noqa: E402

from weald.integrations.celery_command import arrange  # noqa: E402

pytestmark = pytest.mark.timeout(120)
HERE = Path(__file__).parent
databases = iter(range(1, 60))


def wait_for(predicate, seconds=20, what="it"):
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.02)
    return value


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    """A Redis of our own, without the database's number."""
    program = require_program("redis-server", "redis-server")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--databases", "64"]
    server = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)

    def answers():
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    wait_for(answers, what="Redis")
    yield f"redis://127.0.0.1:{port}"
    client.close()
    server.terminate()
    server.wait(10)


class Worker:
    """A Celery worker with our pool, in a database of its own; `app` sends it tasks."""

    def __init__(self, redis_url, log, *args, concurrency=20, broker=None, command=None, environ=None, **settings):
        self.notes_url = f"{redis_url}/0"
        self.broker = broker or f"{redis_url}/{next(databases)}"
        self.backend = f"{redis_url}/{next(databases)}"
        self.app = Celery("client", broker=self.broker, backend=self.backend, set_as_current=False)
        self.notes = redis.Redis.from_url(self.notes_url)
        self.log = log
        lean = ["--without-mingle", "--without-gossip", "-l", "INFO"]
        self.arguments = ["-A", "celery_proj", "worker", *lean, *args, "-c", str(concurrency)]
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
        self.start()

    def start(self):
        with self.log.open("a") as out:
            mark = self.text().count(" ready.")
            self.process = subprocess.Popen(
                self.command, cwd=HERE, env=self.environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for(lambda: self.text().count(" ready.") > mark or self.process.poll() is not None, what="the worker")
        assert self.process.poll() is None, self.text()

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def send(self, name, *args, **options):
        return self.app.send_task(name, args, **options)

    def noted(self, key):
        return [value.decode() for value in self.notes.lrange(key, 0, -1)]

    def ask(self, command):
        """A worker that has just started may not listen yet: so ask again."""
        for _ in range(8):
            answers = getattr(self.app.control.inspect(timeout=1.5, limit=1), command)()
            if answers:
                return next(iter(answers.values()))
        raise AssertionError(f"no answer to {command}\n{self.text()[-3000:]}")

    def pool(self):
        return self.ask("stats")["pool"]

    def queued(self):
        """How many messages are in the queue and how many of the worker's are not acknowledged (Redis)."""
        client = redis.Redis.from_url(self.broker)
        return client.llen("celery"), client.hlen("unacked")

    def stop(self, number=signal.SIGTERM, seconds=20):
        """The exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
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


@pytest.fixture(scope="module")
def shared(redis_url, tmp_path_factory):
    worker = Worker(redis_url, tmp_path_factory.mktemp("worker") / "log", "-E")
    yield worker
    assert worker.stop() == 0, worker.text()


@pytest.fixture
def start(redis_url, tmp_path):
    """Starts workers that end with the test."""
    workers = []

    def start(*args, **options):
        workers.append(Worker(redis_url, tmp_path / f"log{len(workers)}", *args, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


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
        assert self.ready.wait(10)
        return self

    def add(self, event):
        if "uuid" in event:
            self.types.setdefault(event["uuid"], []).append(event["type"])

    def __exit__(self, *_):
        self.done = True
        self.thread.join()
        self.connection.close()


def failure(result, seconds=15):
    """What the task failed with."""
    with pytest.raises(BaseException) as caught:  # noqa: B017  (Timeout is no Exception)
        result.get(timeout=seconds)
    return caught.value


# -------------------------------------------------------------------- limits

def test_soft_limit_of_a_task_that_waits(shared):
    assert 0.25 <= shared.send("soft", 30, soft_time_limit=0.3).get(timeout=10) < 0.6


def test_soft_limit_of_a_task_that_computes(shared):
    assert 0.25 <= shared.send("soft_spin", soft_time_limit=0.3).get(timeout=10) < 1


def test_soft_limit_that_the_task_does_not_catch(shared):
    assert isinstance(failure(shared.send("nap", 30, soft_time_limit=0.2)), SoftTimeLimitExceeded)


def test_hard_limit_ends_a_task_that_catches_everything(shared):
    with Events(shared) as events:
        result = shared.send("stubborn", "hard", time_limit=0.5)
        assert isinstance(failure(result), TimeLimitExceeded)
        wait_for(lambda: "task-failed" in events.types.get(result.id, ()))
        wait_for(lambda: result.id not in {entry["id"] for entry in shared.ask("active")})
        caught = len(shared.noted("hard"))
        assert shared.send("nap", 0.5).get(timeout=10)
    assert len(shared.noted("hard")) == caught  # it runs no more
    assert events.types[result.id].count("task-failed") == 1 and "task-succeeded" not in events.types[result.id]
    assert shared.text().count(f"Hard time limit (0.5s) exceeded for stubborn[{result.id}]") == 1


@pytest.mark.parametrize("name", ["spin", "stubborn_spin"])
def test_hard_limit_ends_a_task_that_computes_while_others_go_on(shared, name):
    began = time.monotonic()
    spinning = shared.send(name, time_limit=1.0)
    other = shared.send("nap", 0.2)
    assert other.get(timeout=10) == 0.2 and not spinning.ready()
    assert isinstance(failure(spinning), TimeLimitExceeded)
    assert time.monotonic() - began < 3
    assert shared.send("add", 1, 2).get(timeout=10) == 3


def test_own_timeout_is_a_failure_of_its_own(shared):
    import weald

    for options in {}, {"time_limit": 20}:
        result = shared.send("own_timeout", **options)
        error = failure(result)
        assert isinstance(error, weald.Timeout) and error.seconds == 0.1
        assert result.status == "FAILURE" and "own_timeout" in result.traceback


@pytest.mark.parametrize("name, error", [("leave", WorkerLostError), ("memory", MemoryError)])
def test_exceptions_that_celery_does_not_trace_are_recorded(shared, name, error):
    assert isinstance(failure(shared.send(name)), error)


def test_limits_of_coroutines(shared):
    assert 0.25 <= shared.send("arrive_late", soft_time_limit=0.3).get(timeout=10) < 0.6
    assert isinstance(failure(shared.send("arrive_never", time_limit=0.3)), TimeLimitExceeded)


# -------------------------------------------------------------------- revoking, control, contexts

def test_revoked_task_is_revoked_only(shared):
    with Events(shared) as events:
        result = shared.send("stubborn", "revoked")
        wait_for(lambda: result.status == "STARTED")
        result.revoke(terminate=True)
        assert isinstance(failure(result), TaskRevokedError)
        wait_for(lambda: "task-revoked" in events.types.get(result.id, ()))
        wait_for(lambda: shared.pool()["running"] == 0)
        after = shared.send("nap", 0.1)
        wait_for(lambda: "task-succeeded" in events.types.get(after.id, ()))
    ends = [event for event in events.types[result.id] if event not in ("task-received", "task-started")]
    assert ends == ["task-revoked"]
    assert result.status == "REVOKED"


def test_control_is_answered_while_a_task_computes(shared):
    result = shared.send("burn", 3)
    wait_for(lambda: result.status == "STARTED")
    for _ in range(4):
        began = time.monotonic()
        assert shared.ask("ping") == {"ok": "pong"}
        assert time.monotonic() - began < 0.5
    assert shared.pool()["longest-running"]["id"] == result.id
    assert not result.ready()
    assert result.get(timeout=10) == "burnt"


def test_each_task_has_a_fresh_context(shared):
    results = [shared.send("context", str(number)) for number in range(30)]
    assert [result.get(timeout=10) for result in results] == [["fresh", str(number)] for number in range(30)]


def test_coroutines(shared):
    began = time.monotonic()
    results = [shared.send("arrive", 0.3) for _ in range(20)]
    assert [result.get(timeout=10) for result in results] == [[True, "fresh"]] * 20
    assert time.monotonic() - began < 3


def test_statistics(shared):
    running = [shared.send("nap", 1) for _ in range(20)]
    waiting = [shared.send("nap", 0) for _ in range(5)]
    stats = wait_for(lambda: (found := shared.pool())["waiting"] == 5 and found)
    assert stats["running"] == stats["max-concurrency"] == 20
    assert stats["longest-running"]["name"] == "nap" and 0 <= stats["longest-running"]["seconds"] < 2
    assert stats["loop-lag"] < 1 and stats["recycles"] == 0
    assert set(stats["limits-hit"]) == {"soft", "hard"}
    for result in running + waiting:
        result.get(timeout=10)
    before = stats["limits-hit"]["soft"]
    shared.send("soft", 9, soft_time_limit=0.1).get(timeout=10)
    assert shared.pool()["limits-hit"]["soft"] == before + 1


def test_redis_connections(start, redis_url):
    """500 tasks that end together: without the pool's care there is a connection for each."""
    worker = start(concurrency=500)
    results = [worker.send("nap", 0.5) for _ in range(500)]
    monitor, process = redis.Redis.from_url(redis_url), psutil.Process(worker.process.pid)
    most = []
    while not all(result.ready() for result in results[::50]):
        ports = {connection.laddr.port for connection in process.net_connections("tcp")}
        found = [client["cmd"] for client in monitor.client_list() if int(client["addr"].rpartition(":")[2]) in ports]
        most = max(most, found, key=len)
    assert sum(result.get(timeout=20) for result in results) == 250
    monitor.close()
    assert 0 < len(most) <= 10, " ".join(most)


def test_a_full_pool_does_not_hold_up_the_consumer(start):
    worker = start(concurrency=1)
    long = worker.send("nap", 1.5)
    wait_for(lambda: long.status == "STARTED")
    others = [worker.send("add", 1, number) for number in range(3)]
    wait_for(lambda: worker.pool()["waiting"] == 3)
    began = time.monotonic()
    assert worker.ask("ping") and time.monotonic() - began < 0.5
    others[1].revoke()
    assert isinstance(failure(others[1]), TaskRevokedError)
    assert [others[0].get(timeout=10), others[2].get(timeout=10)] == [1, 3]
    assert worker.stop() == 0


# -------------------------------------------------------------------- shutting down

def test_sigquit_gives_back_tasks_that_acknowledge_late(start):
    worker = start(concurrency=4)
    for _ in range(8):
        worker.send("late_nap", 30, "quit")
    wait_for(lambda: len(worker.noted("quit:began")) == 4)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert worker.queued() == (8, 0)
    assert worker.noted("quit:ended") == []


def test_sigterm_lets_the_running_end_and_gives_back_the_rest(start):
    worker = start(concurrency=2)
    results = [worker.send("nap", 1) for _ in range(8)]
    wait_for(lambda: sum(result.status == "STARTED" for result in results) == 2)
    began = time.monotonic()
    assert worker.stop() == 0, worker.text()
    assert time.monotonic() - began < 4
    assert worker.queued() == (6, 0)


def test_sigterm_within_a_bound(start):
    worker = start(concurrency=2, weald_shutdown_timeout=0.5)
    for _ in range(3):
        worker.send("late_nap", 60, "bound")
    wait_for(lambda: len(worker.noted("bound:began")) == 2)
    began = time.monotonic()
    assert worker.stop() == 0, worker.text()
    assert time.monotonic() - began < 6
    assert worker.queued() == (3, 0)



# -------------------------------------------------------------------- the command, and the alias

@pytest.mark.parametrize(
    "given, made",
    [
        ("-A proj worker -c 9", ("-A proj worker -c 9 -P custom", "weald")),
        ("-A proj worker -P weald", ("-A proj worker -P custom", "weald")),
        ("-A proj worker -Pgevent -c 9", ("-A proj worker -c 9 -P gevent", "gevent")),
        ("-A proj worker --pool=gevent", ("-A proj worker -P gevent", "gevent")),
        ("-A proj worker -P prefork", ("-A proj worker -P prefork", "prefork")),
        ("-A proj inspect ping", ("-A proj inspect ping", None)),
    ],
)
def test_arguments_of_the_command(given, made):
    arguments, pool = arrange(given.split())
    assert (" ".join(arguments), pool) == made


def test_the_command_and_the_glued_alias(start):
    """`weald celery` with the pool of its own, and with `-Pgevent`, which Celery alone does not patch for."""
    for options, implementation in (
        ([], "weald.integrations.celery:TaskPool"),
        (["-Pgevent"], "celery.concurrency.gevent:TaskPool"),
    ):
        command = [sys.executable, "-m", "weald", "celery", "-A", "celery_proj", "worker", *options, "-c", "10"]
        worker = start(command=[*command, "--without-mingle", "-l", "INFO"])
        began = time.monotonic()
        results = [worker.send("nap", 0.5) for _ in range(10)]
        assert sum(result.get(timeout=10) for result in results) == 5
        assert time.monotonic() - began < 3
        assert worker.pool()["implementation"] == implementation
        assert worker.stop() == 0


# -------------------------------------------------------------------- size and replacement

def test_grow_and_shrink(start):
    worker = start(concurrency=2)
    results = [worker.send("nap", 1.5) for _ in range(6)]
    wait_for(lambda: worker.pool()["waiting"] == 4)
    worker.app.control.pool_grow(2)
    assert wait_for(lambda: (pool := worker.pool())["running"] == 4 and pool)["max-concurrency"] == 4
    worker.app.control.pool_shrink(3)
    assert wait_for(lambda: (pool := worker.pool())["max-concurrency"] == 1 and pool)["running"] >= 1
    for result in results[:4]:
        result.get(timeout=10)
    wait_for(lambda: worker.pool()["running"] == 1)
    worker.app.control.pool_shrink(5)
    for result in results:
        result.get(timeout=10)
    assert worker.pool()["max-concurrency"] == 1


def test_autoscale(start):
    worker = start("--autoscale=6,1", environ={"AUTOSCALE_KEEPALIVE": "1"})
    results = [worker.send("nap", 2) for _ in range(6)]
    wait_for(lambda: worker.pool()["running"] == 6)
    for result in results:
        result.get(timeout=10)
    wait_for(lambda: worker.pool()["max-concurrency"] == 1)
    assert worker.stop() == 0


def test_pool_restart(start, tmp_path):
    """Tasks that run go on; those that come run a reloaded module's code."""
    module = tmp_path / "reloaded.py"
    code = "def version():\n    return {}\n"
    module.write_text(code.format(1))
    environ = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}
    worker = start("-I", "reloaded", environ=environ, worker_pool_restarts=True)
    assert worker.send("version").get(timeout=10) == 1
    running = worker.send("nap", 1)
    wait_for(lambda: running.status == "STARTED")
    module.write_text(code.format(22))
    reply = worker.app.control.pool_restart(modules=["reloaded"], reload=True, reply=True, timeout=5, limit=1)
    assert next(iter(reply[0].values())) == {"ok": "reload started"}
    assert worker.send("version").get(timeout=10) == 22
    assert running.get(timeout=10) == 1
    assert worker.stop() == 0


def test_max_tasks_per_child_and_hangup(start):
    """The process is replaced after so many tasks, or when told to, and no message is lost."""
    worker = start("--max-tasks-per-child=10", concurrency=2)
    results = [worker.send("nap", 0.1) for _ in range(25)]
    assert sum(result.get(timeout=40) for result in results) == pytest.approx(2.5)
    wait_for(lambda: worker.text().count(" ready.") == 3)
    pool = worker.pool()
    assert pool["recycles"] == 2 and pool["max-tasks-per-child"] == 10
    worker.process.send_signal(signal.SIGHUP)
    wait_for(lambda: worker.text().count(" ready.") == 4)
    assert worker.send("pid").get(timeout=10) == worker.process.pid
    assert worker.pool()["recycles"] == 3
    assert worker.stop() == 0
    assert worker.queued() == (0, 0)


def test_max_memory_per_child(start):
    worker = start("--max-memory-per-child=150000", concurrency=2)
    before = worker.send("grab", 120)
    after = [worker.send("nap", 1.2) for _ in range(3)]
    assert before.get(timeout=10) == worker.process.pid
    assert [result.get(timeout=30) for result in after] == [1.2] * 3
    assert worker.pool()["recycles"] == 1
    assert worker.stop() == 0


def test_c_code_that_never_returns(start):
    """It is named in the log, the process is replaced, and the task has failed."""
    worker = start(concurrency=4, weald_stuck_timeout=1.5)
    stuck = worker.send("stuck", time_limit=0.5)
    wait_for(lambda: worker.text().count(" ready.") == 2)
    assert worker.send("add", 1, 2).get(timeout=10) == 3
    assert isinstance(failure(stuck), TimeLimitExceeded)
    assert "in stuck\n" in worker.text() and "is still in C code" in worker.text()
    assert worker.pool()["recycles"] == 1
    assert worker.stop() == 0


def test_c_code_that_keeps_the_gil_ends_the_process(start):
    worker = start(concurrency=4, weald_stuck_timeout=0.5)
    worker.send("stuck_with_gil", time_limit=0.5)
    assert worker.process.wait(20) == 1
    assert "in stuck_with_gil" in worker.text()


# -------------------------------------------------------------------- AMQP

class RabbitMQ:
    """A RabbitMQ of our own, which can be killed and started again with what it had stored."""

    name = "rabbitmq-server"

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

        wait_for(answers, 50, "RabbitMQ")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def messages(self, app, queue):
        """How many are ready in `queue`."""
        with app.connection_for_read() as connection:
            return connection.default_channel.queue_declare(queue, passive=True).message_count


@pytest.fixture(scope="module", autouse=True)
def starting(request, tmp_path_factory):
    """RabbitMQ takes its time: it is started before the first test."""
    if not any("rabbitmq" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    require_program(RabbitMQ.name, RabbitMQ.name)
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def rabbitmq(starting):
    starting.wait()
    return starting


class Proxy:
    """Passes TCP connections on to a port; `drop` cuts all there are."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, server]
            threading.Thread(target=self.copy, args=(client, server), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client), daemon=True).start()

    def copy(self, source, target):
        try:
            while data := source.recv(65536):
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
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.drop()


def amqp(start, url, queue, *args, **options):
    """A worker on AMQP with a queue of its own."""
    return start("-Q", queue, *args, broker=url, task_default_queue=queue, **options)


def test_amqp_heartbeats_go_on_with_a_full_pool(start, rabbitmq):
    """With one slot and four messages prefetched: no drop, no redelivery."""
    worker = amqp(start, rabbitmq.url, "beats", concurrency=1, broker_heartbeat=2, worker_prefetch_multiplier=4)
    for seconds in 6, 0, 0.1, 0.1, 0.1:
        worker.send("late_nap", seconds, "beats", queue="beats")
    wait_for(lambda: len(worker.noted("beats:ended")) == 5, 30)
    assert len(worker.noted("beats:began")) == 5
    assert "onnection" not in worker.text().partition(" ready.")[2].replace("pidbox: Connected", "")
    assert worker.stop() == 0


def test_amqp_reconnecting_leaves_no_timers(start, rabbitmq):
    proxy = Proxy(rabbitmq.port)
    url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
    worker = amqp(start, url, "timers", "-E", concurrency=2, broker_heartbeat=10)
    timers = wait_for(lambda: worker.pool()["timers"])
    for count in range(4):
        proxy.drop()
        wait_for(lambda count=count: worker.text().count("Connected to amqp") >= 2 * (count + 2))  # pidbox's, too
    assert worker.send("add", 1, 2, queue="timers").get(timeout=10) == 3
    assert worker.pool()["timers"] == timers
    assert worker.stop() == 0
    proxy.close()


def test_amqp_sigquit_gives_back(start, rabbitmq):
    worker = amqp(start, rabbitmq.url, "quit", concurrency=4)
    for _ in range(8):
        worker.send("late_nap", 30, "amqp-quit", queue="quit")
    wait_for(lambda: len(worker.noted("amqp-quit:began")) == 4)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert rabbitmq.messages(worker.app, "quit") == 8


def test_amqp_broker_killed_under_load(start, rabbitmq):
    """Every task that acknowledges late is done at least once."""
    worker = amqp(start, rabbitmq.url, "load", concurrency=10, broker_heartbeat=2)
    sent = {worker.send("late_nap", 0.4, "load", queue="load").id for _ in range(60)}
    wait_for(lambda: len(worker.noted("load:ended")) >= 10)
    rabbitmq.kill()
    rabbitmq.start()
    rabbitmq.wait()
    wait_for(lambda: set(worker.noted("load:ended")) == sent, 40)
    assert worker.stop() == 0
    assert rabbitmq.messages(worker.app, "load") == 0
