"""Faults of a broker, RabbitMQ or Redis, while workers with weald's pool and with the alias have tasks.

Two workers, one of each kind, meet the same fault at the same time; the next fault meets the same two.
`WEALD_FULL_LENGTH=1` has each fault happen twenty times to workers of its own, with a broker that is away for one
second and for thirty in turn; that takes an hour.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery_worker import (  # noqa: E402, F401
    PATIENCE,
    Proxy,
    crew,
    rabbitmq,
    redis_broker,
    redis_url,
    wait_for,
)
from kombu.exceptions import OperationalError  # noqa: E402

FULL = os.environ.get("WEALD_FULL_LENGTH") == "1"
TIMES = 20 if FULL else 1


class Scene:
    """A broker, the proxy before it, the workers behind that; `number` counts how often the fault has happened."""

    def __init__(self, broker, crew, name):
        self.broker, self.number = broker, 0
        self.proxy = Proxy(broker.port)
        url = broker.url.replace(str(broker.port), str(self.proxy.port))
        options = {}
        if broker.url.startswith("redis"):
            options["broker_transport_options"] = {"visibility_timeout": 20}
        self.workers = [
            crew.launch(f"{name}-{kind}", "-E", broker=broker.url, queue=f"{name}-{kind}", alias=kind == "alias",
                        environ={"BROKER": url}, concurrency=20, broker_heartbeat=2, broker_connection_timeout=2,
                        broker_channel_error_retry=True, **options)
            for kind in ("pool", "alias")
        ]
        for one in self.workers:
            one.ready()

    def away(self):
        """Seconds that the broker is away this time."""
        return 30 if FULL and self.number % 2 else 1

    def end(self):
        """Check that the workers end on request, and leave no message."""
        try:
            for worker in self.workers:
                worker.tell(15)
            for worker in self.workers:
                assert worker.process.wait(PATIENCE) == 0, worker.text()[-3000:]
                wait_for(lambda worker=worker: self.broker.messages(worker.app, worker.queue) == 0,
                         what="an empty queue")
        finally:
            for worker in self.workers:
                worker.kill()
            self.proxy.close()


class Scenes:
    """Gives each fault a scene: that of the previous fault, if it passed and the faults are few."""

    def __init__(self, broker, crew, kind):
        self.broker, self.crew, self.kind = broker, crew, kind
        self.last = None
        self.count = 0

    def take(self):
        scene, self.last = self.last, None
        if scene is None:
            self.count += 1
            scene = Scene(self.broker, self.crew, f"{self.kind}{self.count}")
        return scene

    def give_back(self, scene):
        if FULL:
            scene.end()
        else:
            self.last = scene

    def end(self):
        if self.last is not None:
            self.last.end()


@pytest.fixture(scope="module")
def rabbitmq_scenes(crew, rabbitmq):
    scenes = Scenes(rabbitmq, crew, "rabbitmq")
    yield scenes
    scenes.end()


@pytest.fixture(scope="module")
def redis_scenes(crew, redis_broker):
    scenes = Scenes(redis_broker, crew, "redis")
    yield scenes
    scenes.end()


def cut(scene):
    """All connections end, on both sides."""
    scene.proxy.drop()


def close_one(scene):
    """The broker closes the oldest connection of each worker: the one that tasks come on."""
    ports = scene.proxy.ports()
    scene.broker.close(ports[:2])


def close_all(scene):
    """The broker closes all connections of the workers."""
    scene.broker.close(scene.proxy.ports())


def close_channel(scene):
    """The broker closes the channel that tasks come on."""
    for worker in scene.workers:
        worker.send("close_channel")


def unreachable(scene):
    """Nothing comes through, for longer than heartbeats may be missed."""
    one = scene.workers[0]  # Celery's own loop, in which the alias runs, takes longer
    lost = one.text().count("onnection to broker lost")
    scene.proxy.open.clear()
    wait_for(lambda: one.text().count("onnection to broker lost") > lost, what="noticing")
    scene.proxy.open.set()


def pause(scene):
    """Nothing comes through for a while."""
    scene.proxy.open.clear()
    time.sleep(scene.away())  # how long it is away
    scene.proxy.open.set()


def kill(scene):
    scene.broker.kill()
    restart(scene)


def end(scene):
    scene.broker.end()
    restart(scene)


def restart(scene):
    time.sleep(scene.away())  # how long it is away
    scene.broker.start()
    scene.broker.wait()


AMQP = [cut, close_one, close_all, close_channel, unreachable, kill]
REDIS = [cut, close_one, close_all, pause, kill, end]
if FULL:
    AMQP += [pause, end]


def each(faults):
    return pytest.mark.parametrize("fault", faults, ids=[fault.__name__ for fault in faults])


def meet(scene, fault):
    """While tasks run, wait, and are acknowledged: each is done."""
    keys = [f"{worker.queue}-{scene.number}" for worker in scene.workers]
    both = list(zip(scene.workers, keys, strict=True))
    sent = {key: {worker.send("late_nap_once", key).id for _ in range(10)} for worker, key in both}
    for worker, key in both:
        sent[key] |= {worker.send("late_nap", 0.01 * length, key).id for length in range(30)}
    for worker, key in both:
        wait_for(lambda worker=worker, key=key: len(worker.noted(f"{key}:ended")) >= 5)
    with ThreadPoolExecutor(1) as thread:
        happening = thread.submit(fault, scene)
        while not happening.done():
            for worker, key in both:
                try:
                    sent[key].add(worker.send("late_nap", 0.1, key, retry=False).id)
                except (OSError, OperationalError):
                    pass  # the broker is away
            time.sleep(0.05)
        happening.result()
    for worker, key in both:
        worker.notes.rpush(key, "go")  # it stays, because a task that was delivered twice reads it again
    spare = fault is not pause and scene.broker.url.startswith("redis")

    def done(worker, key):
        """One message that Redis sends while the connection ends may not arrive: see docs/celery.md."""
        missing = sent[key] - set(worker.noted(f"{key}:ended"))
        return not missing or spare and len(missing) == 1 and not scene.broker.messages(worker.app, worker.queue)

    for worker, key in both:
        wait_for(lambda worker=worker, key=key: done(worker, key), what=f"all of {key}")
    scene.number += 1


def check(scenes, fault):
    """Each task is done, and the workers recover."""
    scene = scenes.take()
    try:
        before = [worker.text().count("Traceback") for worker in scene.workers]
        for _ in range(TIMES):
            meet(scene, fault)
        for worker, count in zip(scene.workers, before, strict=True):
            assert worker.ask("ping")
            wait_for(lambda worker=worker: not worker.ask("active"))
            if scenes.kind == "redis":  # AMQP's messages cannot be acknowledged any more, and Celery says so of each
                assert worker.text().count("Traceback") - count <= TIMES
    except BaseException:
        for worker in scene.workers:
            worker.kill()
        raise
    scenes.give_back(scene)


@pytest.mark.timeout(4000 if FULL else 600)
@each(AMQP)
def test_rabbitmq(rabbitmq_scenes, fault):
    check(rabbitmq_scenes, fault)


@pytest.mark.timeout(4000 if FULL else 600)
@each(REDIS)
def test_redis(redis_scenes, fault):
    check(redis_scenes, fault)
