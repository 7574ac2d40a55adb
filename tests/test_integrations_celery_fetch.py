"""weald.integrations.celery.fetch: takes many messages at a time off a real Redis."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery  # noqa: E402
import redis  # noqa: E402
from celery_worker import PATIENCE, crew, databases, redis_url, wait_for, worker  # noqa: E402, F401
from kombu import Connection, Consumer, Queue  # noqa: E402

import weald  # noqa: E402
from weald.integrations.celery import fetch  # noqa: E402
from weald.integrations.celery.consumer import _noticing  # noqa: E402


class Taking:
    """A kombu consumer and its Fetcher; what they take is in `bodies`."""

    def __init__(self, url, queues, prefetch=0, **options):
        self.connection = Connection(url, transport_options=options)
        self.channel = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = Consumer(self.channel, queues, on_message=self.on_message, accept=["json", "text/plain"])
        self.consumer.consume()
        self.bodies, self.messages = [], []
        self.fetch = fetch.fetcher(self.consumer)
        self.client = redis.Redis.from_url(url)

    def on_message(self, message):
        self.bodies.append(message.decode())
        self.messages.append(message)

    def put(self, *bodies, queue="q", **options):
        with self.connection.Producer() as producer:
            for body in bodies:
                producer.publish(body, routing_key=queue, **options)

    def drain(self):
        while self.fetch():
            pass

    def unacked(self, prefix=""):
        return self.client.hlen(f"{prefix}unacked"), self.client.zcard(f"{prefix}unacked_index")

    def close(self):
        self.connection.close()
        self.client.close()


@pytest.fixture
def taking(redis_url):
    made = []

    def make(queues=("q",), **options):
        made.append(Taking(f"{redis_url}/{next(databases)}", [Queue(name) for name in queues], **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_takes_in_order_and_notes_each(taking):
    one = taking()
    one.put(*range(1000))
    assert one.fetch() and len(one.bodies) == fetch.MAX_MESSAGES
    one.drain()
    assert one.bodies == list(range(1000))
    assert one.unacked() == (1000, 1000) and not one.fetch()
    for message in one.messages:
        message.ack()
    assert one.unacked() == (0, 0) and not one.fetch._noted


def test_what_is_noted_is_what_kombu_notes(taking):
    """Unicode, an empty list and so on: the message itself is not encoded again."""
    one = taking()
    one.put({"é\"\\\n": [[], {}, 12345678901234567890, 1e-300, None]}, headers={"x": "ü", "empty": []})
    raw = one.client.lindex("q", 0).decode()
    assert one.fetch()
    (noted,) = one.client.hvals("unacked")
    assert json.loads(noted) == [json.loads(raw), "", "q"]
    one.messages[0].requeue()
    again = json.loads(one.client.lindex("q", 0))
    assert again["body"] == json.loads(raw)["body"] and again["headers"]["redelivered"] is True
    assert one.unacked() == (0, 0)


def test_leaves_three_quarters_to_others(taking):
    one = taking()
    one.put(*range(40))
    assert one.fetch() and len(one.bodies) == 10
    assert one.client.llen("q") == 30


def test_prefetch_limit(taking):
    one = taking(prefetch=7)
    one.put(*range(100))
    one.drain()
    assert one.bodies == list(range(7)) and one.unacked() == (7, 7)
    for message in one.messages[:3]:
        message.ack()
    one.drain()
    assert one.bodies == list(range(10)) and one.unacked() == (7, 7)


def test_what_is_acknowledged_makes_room_at_once(taking):
    """Not only when kombu's poll ends; and as many as there is room for are taken."""
    one = taking(prefetch=2)
    one.put(*range(4))
    one.drain()
    assert not one.fetch.wait_for_room(0.01)
    weald.spawn_raw(one.messages[0].ack)
    assert not one.fetch.wait_for_room(PATIENCE) and one.bodies == [0, 1, 2]
    weald.spawn_raw(one.messages[1].reject)
    assert not one.fetch.wait_for_room(PATIENCE) and one.bodies == [0, 1, 2, 3]
    weald.spawn_raw(one.messages[2].ack)
    assert one.fetch.wait_for_room(PATIENCE) and one.unacked() == (1, 1)


def test_celerys_own_loop_takes_many_at_a_time(taking):
    """The alias runs Celery's loop: a quarter is taken when the wait ends, then a quarter of the others."""
    one = taking()
    one.put(*range(41))

    def celery_loop(c, connection, consumer):
        connection.drain_events(timeout=PATIENCE)

    _noticing(celery_loop)(SimpleNamespace(), one.connection, one.consumer)
    assert one.bodies == list(range(19)) and one.unacked() == (19, 19)


def test_closing_gives_back(taking):
    one = taking()
    one.put(*range(20))
    one.drain()
    one.messages[0].ack()
    one.channel.close()
    assert one.client.llen("q") == 19 and one.unacked() == (0, 0)


def test_closing_gives_back_what_a_failing_callback_left(taking):
    one = taking()
    one.put(*range(20))

    def fail(message):
        raise RuntimeError("in the callback")

    one.consumer.on_message = fail
    with pytest.raises(RuntimeError):
        one.fetch()
    one.channel.close()
    assert one.client.llen("q") == 20 and one.unacked() == (0, 0)


def test_several_queues_take_turns(taking):
    one = taking(("a", "b"))
    one.put(*["a"] * 8, queue="a")
    one.put(*["b"] * 8, queue="b")
    one.fetch()
    one.fetch()
    assert sorted(one.bodies) == ["a", "a", "b", "b"]
    one.drain()
    assert sorted(one.bodies) == ["a"] * 8 + ["b"] * 8


def test_priorities(taking):
    one = taking()
    one.put("low", "low", priority=9)
    one.put("high", "high", priority=0)
    one.drain()
    assert one.bodies == ["high", "high", "low", "low"]


def test_key_prefix(taking):
    one = taking(global_keyprefix="prefix-")
    one.put(*range(10))
    assert one.client.llen("prefix-q") == 10
    one.drain()
    assert one.bodies == list(range(10)) and one.unacked("prefix-") == (10, 10)
    one.channel.close()
    assert one.client.llen("prefix-q") == 10


def test_queue_whose_consumer_is_cancelled_meanwhile(taking):
    one = taking()
    one.put(*range(4))
    del one.channel.connection._callbacks["q"]
    assert one.fetch()
    assert one.client.llen("q") == 4 and one.unacked() == (0, 0) and not one.channel.qos._delivered.keys() - (
        one.channel.qos._dirty
    )


def test_messages_it_cannot_read_are_left(taking):
    one = taking()
    for bad in "no JSON", "[]", '{"properties": {}}', '{"properties": {"delivery_tag": 1, "delivery_info": {}}}':
        one.client.rpush("q", bad)
        assert not one.fetch() and one.client.rpop("q").decode() == bad and one.unacked() == (0, 0)


def waiting(one):
    """Make the channel send the command that waits for a message."""
    one.channel.connection.cycle.on_poll_start()
    assert one.channel._in_poll


def waits(one):
    """(how often BLMOVE was sent, how often BRPOP), by all clients, to this server."""
    stats = one.client.info("commandstats")
    return tuple(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("blmove", "brpop"))


def test_a_lost_answer_loses_no_message(taking):
    """The connection ends after Redis has answered the command that waits, and before the answer is read."""
    one = taking()
    waiting(one)
    one.put(1)
    one.channel.client.connection.disconnect()
    assert one.client.llen("q") == 1 and one.unacked() == (0, 0)
    two = Taking(one.connection.as_uri(), [Queue("q")])
    two.connection.drain_events(timeout=PATIENCE)
    assert two.bodies == [1] and two.unacked() == (1, 1)
    two.close()


def test_waits_without_taking_and_keeps_the_order(taking):
    one = taking()
    before = waits(one)
    waiting(one)
    one.put(*range(3))
    while len(one.bodies) < 3:
        one.connection.drain_events(timeout=PATIENCE)
    assert one.bodies == [0, 1, 2] and one.unacked() == (3, 3)
    assert waits(one)[0] > before[0] and waits(one)[1] == before[1]


def test_several_who_wait_without_taking(taking):
    """A message wakes both; one gets it, and the other waits on."""
    one = taking()
    two = Taking(one.connection.as_uri(), [Queue("q")])
    waiting(one)
    waiting(two)
    one.put(1)
    one.connection.drain_events(timeout=PATIENCE)
    with pytest.raises(TimeoutError):
        two.connection.drain_events(timeout=0.01)
    one.put(2)
    two.connection.drain_events(timeout=PATIENCE)
    assert (one.bodies, two.bodies) == ([1], [2]) and one.unacked() == (2, 2)
    two.close()


def test_waiting_with_priorities_in_use(taking):
    """The first message of another priority is found when a wait ends; from then on all lists are waited for."""
    one = taking()
    waiting(one)
    one.put("low", priority=9)
    one.connection.drain_events(timeout=PATIENCE)
    before = waits(one)
    waiting(one)
    one.put("low again", priority=9)
    one.connection.drain_events(timeout=PATIENCE)
    assert one.bodies == ["low", "low again"] and one.unacked() == (2, 2)
    assert waits(one) == (before[0], before[1] + 1)


def test_waiting_for_several_queues(taking):
    one = taking(("a", "b"))
    waiting(one)
    one.put("b", queue="b")
    one.connection.drain_events(timeout=PATIENCE)
    assert one.bodies == ["b"] and one.unacked() == (1, 1)


def test_waiting_when_there_is_a_message_that_it_cannot_read(taking):
    """kombu takes it and handles it in its own way; the messages behind it are delivered."""
    one = taking()
    bad = {"body": "1", "properties": {"delivery_tag": "t", "delivery_info": {}}, "headers": {}}
    one.client.rpush("q", json.dumps(bad))
    with pytest.raises(KeyError):
        while True:
            one.connection.drain_events(timeout=PATIENCE)
    assert one.client.llen("q") == 0
    one.put(1)
    one.connection.drain_events(timeout=PATIENCE)
    assert one.bodies == [1]


def test_redis_that_has_no_such_wait(taking, redis_url, caplog):
    one = taking()
    user = f"user{next(databases)}"
    one.client.acl_setuser(user, enabled=True, nopass=True, keys="*", channels="*", categories=["+@all"],
                           commands=["-blmove"])
    number = one.client.connection_pool.connection_kwargs["db"]
    two = Taking(f"{redis_url.replace('redis://', f'redis://{user}:x@')}/{number}", [Queue("q")])
    for body in 1, 2:
        waiting(two)
        one.put(body)
        two.connection.drain_events(timeout=PATIENCE)
    assert two.bodies == [1, 2] and caplog.text.count("without taking") == 1
    two.close()


def test_closing_while_it_waits(taking):
    one = taking()
    waiting(one)
    one.put(1)
    one.channel.close()
    assert one.client.llen("q") == 1 and one.unacked() == (0, 0) and not one.bodies


def test_waiting_with_a_key_prefix(taking):
    one = taking(global_keyprefix="prefix-")
    waiting(one)
    one.put(1)
    one.connection.drain_events(timeout=PATIENCE)
    assert one.bodies == [1] and one.unacked("prefix-") == (1, 1)


def test_no_acknowledgements_no_fetching(taking, redis_url):
    one = Taking(f"{redis_url}/{next(databases)}", [Queue("q", no_ack=True)])
    one.put(1)
    assert not one.fetch() and one.client.llen("q") == 1
    one.close()
    assert fetch.fetcher(Consumer(Connection("memory://").channel(), [])) is None


def test_redis_that_refuses_scripts(taking, redis_url, caplog):
    """One warning, and kombu goes on alone."""
    one = taking()
    user = f"user{next(databases)}"
    one.client.acl_setuser(user, enabled=True, nopass=True, keys="*", channels="*", categories=["+@all"],
                           commands=["-eval", "-evalsha"])
    number = one.client.connection_pool.connection_kwargs["db"]
    two = Taking(f"{redis_url.replace('redis://', f'redis://{user}:x@')}/{number}", [Queue("q")])
    one.put(1, 2, 3)
    assert not two.fetch() and not two.fetch()
    assert caplog.text.count("Redis runs no scripts for this worker") == 1
    for _ in range(3):
        two.connection.drain_events(timeout=PATIENCE)
    assert two.bodies == [1, 2, 3]
    two.close()


@pytest.mark.worker("-Q", "celery,other", concurrency=50)
def test_worker(worker):
    """Tasks of two queues, with acknowledgements early and late; nothing is left unacknowledged."""
    results = [worker.send("add", 1, number, queue=("celery", "other")[number % 2]) for number in range(600)]
    for _ in range(50):
        worker.send("late_nap", 0, "fetched")
    assert [result.get(timeout=PATIENCE) for result in results] == [number + 1 for number in range(600)]
    wait_for(lambda: len(worker.noted("fetched:ended")) == 50)
    wait_for(lambda: worker.queued() == (0, 0))
    assert worker.ask("active_queues")


@pytest.mark.skipif(celery.VERSION < (5, 6), reason="Celery 5.5 has no --disable-prefetch")
@pytest.mark.worker("--disable-prefetch", concurrency=2)
def test_disabled_prefetch(worker):
    """Celery's own: no more messages are taken than there are slots."""
    results = [worker.send("hold", "unprefetched") for _ in range(9)]
    wait_for(lambda: worker.pool()["running"] == 2)
    worker.ask("ping")
    assert worker.pool()["waiting"] == 0 and worker.queued()[0] >= 6  # kombu may have popped one
    worker.notes.rpush("unprefetched", "go")
    for result in results:
        result.get(timeout=PATIENCE)


@pytest.mark.worker(concurrency=4)
def test_cancelled_queue(worker):
    """`cancel_consumer` and `add_consumer` while messages come."""
    worker.ask("ping")
    for name in "cancel_consumer", "add_consumer":
        getattr(worker.app.control, name)("celery", reply=True, timeout=PATIENCE, limit=1)
        results = [worker.send("add", 1, number) for number in range(20)]
    for result in results:
        result.get(timeout=PATIENCE)
    wait_for(lambda: worker.queued() == (0, 0))
