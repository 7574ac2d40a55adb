"""Celery's own gevent pool, with changes that keep tasks and results from being lost.

Called by: weald/compat/_door.py, when Celery imports its module `celery.concurrency.gevent` and gevent is weald.

It differs from Celery's gevent pool in this only:
- A task that a shutdown ends is not acknowledged.  gevent's pool treats the GreenletExit that ends it as a return.
- An outcome is stored later if the result store is unreachable.
- Many greenlets may use one connection to an AMQP broker; remote control connects again if its connection ends.
- Messages are taken off Redis as weald's pool takes them: many in one step, and as soon as the prefetch limit allows.
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
    """Celery's gevent pool with the changes that this file begins with."""

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
        """Run `target` in a greenlet.  `callback` is not called if `terminate_job` has ended the greenlet."""

        def finish(value: Any) -> None:
            if not getattr(getcurrent(), "weald_terminated", False):
                callback(value)

        return super().on_apply(target, args, kwargs, callback=finish, **options)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End the greenlet with this number."""
        greenlet = self._pool_map.get(pid)
        if greenlet is not None:
            greenlet.weald_terminated = True  # the caller acknowledges or rejects the message
        super().terminate_job(pid, signal)

    def says(self, worker: Any) -> list[str]:
        """Lines about this pool for the worker's banner."""
        return [
            f"Celery's gevent pool, run by weald: up to {self.limit} tasks at once in this process",
            "hard limits and revokes end tasks that wait; there are no soft limits, and a task that computes stops all",
            "unacknowledged tasks that a shutdown ends go back to the queue",
            "results are stored later if the store is unreachable; running tasks go on without the broker",
        ]

    def contradictions(self, worker: Any) -> Iterator[str]:
        """Warnings about settings that contradict the promises."""
        soft = announcement.with_soft_limits(worker)
        if soft:
            yield f"the soft time limit of {announcement.several(soft)} is never raised: this pool has none"
        yield from announcement.of_the_broker(worker)


gevent.TaskPool = TaskPool  # Celery looks the pool up by this name
