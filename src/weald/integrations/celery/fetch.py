"""Takes many messages off a Redis queue in one round trip, and loses none of them.

Called by: consumer.py: `fetcher` after each message that kombu has taken and whenever the prefetch limit allows more
again, `note_for_certain` when it has connected.

kombu takes a message with BRPOP and then records it as unacknowledged, so that it can be restored.  These are two round
trips, and between them only this process has the message.  `Fetcher` does both in one script, for many messages.

It also waits without taking: BLMOVE from the right end of a list to the same end answers once the list has a message,
and leaves it where it is.  Redis has no such command for several lists.  So only a worker with one queue waits like
this.  It checks that queue's lists for other priorities when a wait ends, and once one of them has had a message, it
waits with BRPOP on all of them, as other workers do.

The message that ends a wait with BRPOP is exposed to the gap between the two round trips.  If the connection breaks in
the gap, `note_for_certain` keeps the message until the next connection; so a message is lost only if the process ends
in the gap, or if Redis's answer to BRPOP does not arrive.

Invariants:
- Messages that the script has taken are in kombu's QoS before the first of them is delivered.  So they count against
  the prefetch limit, and closing the channel gives them back.
- If a queue has no acknowledgements, or Redis refuses scripts, kombu takes the messages as usual.
"""

import hashlib
import json
from functools import partial
from queue import Empty
from time import time
from typing import Any

from celery.utils.log import get_logger

from weald._core import Event
from weald.integrations.celery.replacement import shuts_down

__all__ = ["fetcher", "note_for_certain"]

logger = get_logger("celery.pool")

MAX_MESSAGES = 100  # messages in one go; Redis serves no other client meanwhile (about 1 ms)
WAIT = 1.0  # seconds of a wait without taking, in which the lists for other priorities are not looked into

# ARGV: how many messages at most, now.  KEYS: the hash and the index of unacknowledged messages, then the lists, of
# which the first that is not empty is taken from, as BRPOP would; but never more than a quarter of it (rounded up), so
# that other workers get their share of a short queue.
# Returns [number of the list, message, tag, message, tag, ...].  A message that it cannot read it leaves to kombu: if
# that is the first, it returns [0].
TAKE = """
local found = {}
for number = 3, #KEYS do
    local key = KEYS[number]
    local count = math.min(tonumber(ARGV[1]), math.ceil(redis.call('LLEN', key) / 4))
    while count > 0 do
        local message = redis.call('LINDEX', key, -1)
        local good, payload = pcall(cjson.decode, message)
        local properties = good and type(payload) == 'table' and payload.properties
        local info = type(properties) == 'table' and properties.delivery_info
        local tag = type(info) == 'table' and properties.delivery_tag
        if type(tag) ~= 'string' or type(info.exchange) ~= 'string' or type(info.routing_key) ~= 'string' then
            if not found[1] then found[1] = 0 end
            return found
        end
        redis.call('ZADD', KEYS[2], ARGV[2], tag)
        redis.call('HSET', KEYS[1], tag,
            '[' .. message .. ', ' .. cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key) .. ']')
        redis.call('RPOP', key)
        if not found[1] then found[1] = number end
        found[#found + 1] = message
        found[#found + 1] = tag
        count = count - 1
    end
    if found[1] then return found end
end
return found
"""


def note_for_certain(c: Any, channel: Any) -> None:
    """Have `channel`, of Celery's consumer `c`, keep messages that it cannot note as unacknowledged, because the
    connection breaks.  Messages that an earlier channel has kept go back to their queues now.
    """
    try:
        from kombu.transport import redis
    except ImportError:
        return
    qos: Any = getattr(channel, "qos", None)
    if type(qos) is not redis.QoS:
        return
    kept: list[tuple[Any, str]] = vars(c).setdefault("weald_not_noted", [])
    while kept:
        message, tag = kept[0]
        where = message.delivery_info
        with qos.pipe_or_acquire() as pipe:
            qos._remove_from_indices(tag, pipe)  # it may have been noted, and the answer lost
            channel._do_restore_message(message._raw, where["exchange"], where["routing_key"], pipe)
            pipe.execute()
        del kept[0]
    append = qos.append

    def note(message: Any, tag: str) -> None:
        try:
            append(message, tag)
        except Exception as error:
            kept.append((message, tag))
            logger.warning("the connection broke as a message was taken: it goes back on the next one: %r", error)
            raise

    qos.append = note


def fetcher(consumer: Any) -> "Fetcher | None":
    """A Fetcher for a kombu consumer on Redis; None if it is not on Redis, or its channel notes no messages."""
    try:
        from kombu.transport import redis
    except ImportError:
        return None
    channel = consumer.channel
    if not isinstance(channel, redis.Channel) or type(channel.qos) is not redis.QoS:
        return None
    return Fetcher(consumer)


class Fetcher:
    """Called, takes messages from the queues of `consumer`, up to its prefetch limit, and delivers them."""

    def __init__(self, consumer: Any) -> None:
        import redis
        from kombu.transport import redis as transport
        from kombu.transport.virtual import QoS

        self.consumer = consumer
        self.channel = consumer.channel
        self.qos = self.channel.qos
        self._unknown, self._refused = redis.exceptions.NoScriptError, redis.ResponseError
        self._execute = redis.Redis.execute_command  # kombu's clients prefix keys, but not all of a script's
        self._noted: set[str] = set()
        self._append, self._append_here = self.qos.append, partial(QoS.append, self.qos)
        self.qos.append = self._note
        self._settled = Event()
        self._quick_ack = self.qos._quick_ack
        self.qos._quick_ack = self._settle
        self._clock = getattr(transport, "monotonic", time)  # kombu 5.7 finds broken connections by it
        self._can_wait = True  # without taking
        self._unreadable = False  # the next message is one that only kombu can take
        self._brpop_start, self._brpop_read = self.channel._brpop_start, self.channel._brpop_read
        self._read = self._brpop_read
        self.channel._brpop_start = self._begin_wait
        self.channel._brpop_read = self.channel.handlers["BRPOP"] = self._read_wait

    def _note(self, message: Any, tag: str) -> None:
        """Replaces `QoS.append`: messages that the script has taken are noted already."""
        if tag in self._noted:
            self._noted.discard(tag)
            self._append_here(message, tag)
        else:
            self._append(message, tag)

    def _settle(self, tag: str) -> None:
        """Replaces `QoS._quick_ack`, which kombu calls for each message acknowledged, rejected or given back."""
        self._quick_ack(tag)
        self._settled.set()

    def wait_for_room(self, seconds: float) -> bool:
        """Whether the prefetch limit allows another message.  If not, wait up to `seconds` until it does, and fetch.

        kombu looks at the limit again only when its poll ends.
        """
        if self.qos.can_consume() or "can_consume" in vars(self.qos):
            return True
        self._settled.clear()
        if self._settled.wait(seconds):
            self()
        return bool(self.qos.can_consume())

    def __call__(self) -> bool:
        """Take and deliver messages; whether there were any."""
        taken = self._take()
        if taken is None:
            return False
        queue, pairs = taken
        for _, tag in pairs:
            self._noted.add(tag)
            self.qos._delivered[tag] = None
        self.channel._queue_cycle.rotate(queue)
        transport = self.channel.connection
        for message, tag in pairs:
            # Delivering waits for a slot in Celery's own pool of greenlets; the worker may be told to stop meanwhile.
            if shuts_down():
                break  # closing the channel gives the rest back
            if queue in transport._callbacks:
                transport._deliver(json.loads(message), queue)
            else:  # the queue's consumer was cancelled meanwhile
                self._noted.discard(tag)
                self.qos.reject(tag, requeue=True)
        return True

    def _begin_wait(self, *args: Any) -> None:
        """Replaces `Channel._brpop_start`: send the command that waits for a message."""
        channel = self.channel
        lists = self._lists() if self._can_wait and not self._unreadable and self._room() > 0 else []
        self._unreadable = False
        if len(channel.active_queues) != 1 or not lists:
            self._read = self._brpop_read
            self._brpop_start(*args)
            return
        self._read = self._end_wait
        key = channel.global_keyprefix + lists[0]
        channel._in_poll = channel.client.connection
        channel._brpop_sent_at = self._clock()
        channel.client.connection.send_command("BLMOVE", key, key, "RIGHT", "RIGHT", WAIT)

    def _read_wait(self, **options: Any) -> Any:
        """Replaces `Channel._brpop_read`: read the answer to the command that `_begin_wait` has sent."""
        return self._read(**options)

    def _end_wait(self, **options: Any) -> bool:
        """Take messages now that there are some.  Raises queue.Empty if there are none."""
        channel = self.channel
        connection = channel.client.connection
        try:
            channel.client.parse_response(connection, "BLMOVE", **options)
        except channel.connection_errors:
            connection.disconnect()
            raise
        except self._refused as error:
            logger.warning("Redis lets this worker not wait without taking (BLMOVE), so it uses BRPOP: %s", error)
            self._can_wait = False
        finally:
            channel._in_poll = None
            getattr(channel, "_flush_brpop_reauth", bool)()  # since kombu 5.7: credentials may be renewed now
        if channel._closing or not self():
            raise Empty
        return True

    def _lists(self) -> list[str]:
        channel = self.channel
        queues = channel._queue_cycle.consume(len(channel.active_queues))
        return [channel._q_for_pri(queue, step) for step in channel.priority_steps for queue in queues]

    def _room(self) -> int:
        """How many messages may be taken."""
        if "can_consume" in vars(self.qos):
            return 0  # Celery's worker_disable_prefetch looks before each message
        if self.consumer.no_ack or any(queue.no_ack for queue in self.consumer.queues):
            return 0
        room = self.qos.can_consume_max_estimate()
        return MAX_MESSAGES if room is None else min(room, MAX_MESSAGES)

    def _take(self) -> tuple[str, list[tuple[str, str]]] | None:
        """(queue, messages and their tags), noted as unacknowledged."""
        room = self._room()
        lists = self._lists() if room > 0 else []
        if not lists:
            return None
        channel = self.channel
        prefix = channel.global_keyprefix
        keys = [prefix + key for key in (self.qos.unacked_key, self.qos.unacked_index_key, *lists)]
        arguments = (len(keys), *keys, room, time())
        with channel.conn_or_acquire() as client:
            try:
                try:
                    taken = self._execute(client, "EVALSHA", _DIGEST, *arguments)
                except self._unknown:
                    taken = self._execute(client, "EVAL", TAKE, *arguments)  # the server knows it from now on
            except self._refused as error:
                logger.warning("Redis runs no scripts for this worker, so it takes messages one by one: %s", error)
                self._room = lambda: 0  # type: ignore[method-assign]
                return None
        if not taken:
            return None
        number, *rest = taken
        if number == 0:
            self._unreadable = True
            return None
        if number > 3:
            self._can_wait = False  # priorities are in use: their lists must not be checked late
        queue = lists[int(number) - 3].rsplit(channel.sep, 1)[0]
        texts = [_text(item) for item in rest]
        return queue, list(zip(texts[::2], texts[1::2], strict=True))


_DIGEST = hashlib.sha1(TAKE.encode()).hexdigest()


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode()
