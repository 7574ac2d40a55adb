"""Celery's own gevent pool, kept from losing what it would lose.

Called by: weald/compat/_door.py, when Celery imports its module `celery.concurrency.gevent` and gevent is weald.

Everything is as with Celery's gevent pool, but for this:
- A task that a shutdown ends is not acknowledged.  gevent's pool takes the GreenletExit that ends it for a return.
- Outcomes that cannot be stored because the result store is away are stored when it is back.
- A connection to an AMQP broker may be used by many greenlets; remote control survives the end of its connection.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from celery.concurrency import gevent
from greenlet import getcurrent

from weald._core import spawn_raw
from weald.integrations.celery import amqp, announcement, consumer, results

__all__ = ["TaskPool"]


amqp.arrange()
announcement.announce()


class TaskPool(gevent.TaskPool):
    """See above."""

    __module__ = gevent.TaskPool.__module__  # by which Celery and users know it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spawn_n = partial(spawn_raw, consumer.listen)
        if self.app is not None:
            self.app.steps["consumer"].add(consumer.LoopStep)

    def on_start(self) -> None:
        """Celery calls it once, before the first task."""
        if self.app is not None:
            results.arrange_backend(self.app, None)
        super().on_start()

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, **options: Any) -> Any:
        """Have a greenlet run `target`; `callback` is not called for one that `terminate_job` has ended."""

        def finish(value: Any) -> None:
            if not getattr(getcurrent(), "weald_terminated", False):
                callback(value)

        return super().on_apply(target, args, kwargs, callback=finish, **options)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End the greenlet with this number."""
        greenlet = self._pool_map.get(pid)
        if greenlet is not None:
            greenlet.weald_terminated = True  # whoever asks for that settles the message
        super().terminate_job(pid, signal)

    def says(self, worker: Any) -> list[str]:
        """What the banner says of this pool."""
        return [
            f"Celery's gevent pool, run by weald: up to {self.limit} tasks at once in this process",
            "hard limits and revokes end tasks that wait; there are no soft limits, and tasks that compute hold up all",
            "what a shutdown cuts short and is not acknowledged goes back to the queue",
            "results wait for a store that is away, running tasks go on without the broker",
        ]

    def contradictions(self, worker: Any) -> Iterator[str]:
        """Settings that do not go together with that."""
        soft = announcement.with_soft_limits(worker)
        if soft:
            yield f"the soft time limit of {announcement.several(soft)} is never raised: this pool has none"
        yield from announcement.of_the_broker(worker)


gevent.TaskPool = TaskPool  # whoever asks Celery for the pool by its name
