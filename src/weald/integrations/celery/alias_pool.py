"""Celery's own gevent pool, kept from losing what it would lose.

Called by: Celery, which finds it by the name "gevent" in the process of `weald celery … -P gevent`.

Everything is as with Celery's gevent pool, but for this:
- A task that a shutdown ends is not acknowledged.  gevent's pool takes the GreenletExit that ends it for a return.
- Outcomes that cannot be stored because the result store is away are stored when it is back.
- A connection to an AMQP broker may be used by many greenlets; remote control survives the end of its connection.
"""

from functools import partial
from typing import Any

from celery.concurrency import gevent
from greenlet import getcurrent

from weald._core import spawn_raw
from weald.integrations.celery import amqp, consumer, results

__all__ = ["TaskPool"]


amqp.arrange()


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
