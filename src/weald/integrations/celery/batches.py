"""Acknowledges messages and stores results in Redis for many tasks in one round trip.

Called by: results.py, consumer.py.

A greenlet that calls a `Batcher` waits until its item is done.  Items that come during a round trip share the next one.
So one connection is enough, and tasks share most of the CPU time that a command costs.
"""

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from weald._core import AsyncResult, get_hub, get_hub_if_exists, spawn_raw

__all__ = ["Batcher", "batch_acknowledgements", "batch_results"]

logger = get_logger("celery.pool")

MAX_ITEMS = 500  # in a batch


class _Batch:
    __slots__ = ("done", "items")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.done: AsyncResult[list[Any] | None] = AsyncResult()


class Batcher:
    """Calls `work(items)`, which returns a result per item, or None.  If it raises, so does each call of the batch."""

    def __init__(self, work: Callable[[list[Any]], list[Any] | None]) -> None:
        self._work = work
        self._hub = get_hub()
        self._batches: list[_Batch] = []
        self._serving = False

    def __call__(self, item: Any) -> Any:
        """Put `item` in a batch and wait; its result."""
        if get_hub_if_exists() is not self._hub:
            results = self._work([item])
            return None if results is None else results[0]
        if not self._batches or len(self._batches[-1].items) >= MAX_ITEMS:
            self._batches.append(_Batch())
        batch = self._batches[-1]
        index = len(batch.items)
        batch.items.append(item)
        if not self._serving:
            self._serving = True
            spawn_raw(self._serve)
        results = batch.done.get()
        return None if results is None else results[index]

    def _serve(self) -> None:
        while self._batches:
            batch = self._batches.pop(0)
            try:
                results = self._work(batch.items)
            except BaseException as error:
                batch.done.set_exception(error)
            else:
                batch.done.set(results)
        self._serving = False


def batch_results(backend: Any) -> None:
    """Have a RedisBackend read and write results in batches."""

    def write(items: list[tuple[str, Any, int | None]]) -> None:
        with backend.client.pipeline() as pipe:
            for key, value, expires in items:
                if expires:
                    pipe.setex(key, expires, value)
                else:
                    pipe.set(key, value)
                pipe.publish(key, value)
            pipe.execute()

    batched_write, batched_read = Batcher(write), Batcher(lambda keys: list(backend.client.mget(keys)))
    backend._set = lambda key, value, expires=None: batched_write(
        (key, value, backend.expires if expires is None else expires)
    )
    backend.get = batched_read


def batch_acknowledgements(channel: Any, later: list[str]) -> None:
    """Have a channel of kombu's Redis transport acknowledge in batches, and keep one client for all its commands.

    Tags of messages that cannot be acknowledged, because the connection is lost, are added to `later`.  Tags that an
    earlier channel has left in it are acknowledged now.
    """
    try:
        from kombu.transport import redis
    except ImportError:
        return
    qos: Any = getattr(channel, "qos", None)
    if type(qos) is not redis.QoS or hasattr(channel, "weald_client"):
        return
    create = channel._create_client
    channel.weald_client = None

    def client(asynchronous: bool = False) -> Any:
        if asynchronous:
            return create(asynchronous=True)
        kept = channel.weald_client
        if kept is None or kept.connection_pool is not channel.pool:
            kept = channel.weald_client = create()
        return kept

    def remove(tags: list[str]) -> None:
        with qos.pipe_or_acquire() as pipe:
            pipe.zrem(qos.unacked_index_key, *tags).hdel(qos.unacked_key, *tags).execute()

    def acknowledge(tags: list[str]) -> None:
        try:
            remove(tags)
        except (*channel.connection_errors, OSError, ValueError) as error:  # the last two: it was closed meanwhile
            if not later:
                logger.warning("acknowledgements wait until there is a connection to the broker: %r", error)
            later.extend(tags)
        for tag in tags:
            qos._quick_ack(tag)

    channel._create_client = client
    qos.ack = Batcher(acknowledge)
    if later:
        remove(later)
        later.clear()
