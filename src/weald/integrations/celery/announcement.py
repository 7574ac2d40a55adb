"""The text that a worker writes at its start: which pool runs, what it promises, which settings contradict that.

Called by: pool.py, alias_pool.py, celery_command.py.

A pool class of weald's has `says(worker)`, which returns sentences for the worker's banner, and
`contradictions(worker)`, which yields warnings for its log.  Of another pool the banner says that weald does not run
its tasks.
"""

import os
from collections.abc import Iterator
from typing import Any

from celery import signals
from celery.utils.log import get_logger

__all__ = ["announce", "of_limits", "of_the_broker", "several", "with_soft_limits"]

logger = get_logger("celery.pool")

VISIBILITY = 3600  # seconds: kombu's default for Redis


def announce() -> None:
    """Have workers of this process write the banner and the warnings.  Calling it again does nothing."""
    signals.celeryd_after_setup.connect(_speak, weak=False, dispatch_uid="weald.announcement")


def _speak(instance: Any, **kwargs: Any) -> None:
    """Celery calls it before the banner, with the `celery worker` program."""
    pool = instance.pool
    says = getattr(pool, "says", None)
    if says is None:
        name = f"{type(pool).__module__}:{type(pool).__name__}"
        sentences = [f"Celery's own ({name}): weald does not run its tasks and promises nothing"]
    else:
        sentences = says(instance)
        for sentence in pool.contradictions(instance):
            logger.warning("settings: %s", sentence)
    extra_info = instance.extra_info
    text = "[pool]\n" + "".join(f"  . {sentence}\n" for sentence in sentences) + "\n"
    instance.extra_info = lambda: text + (extra_info() or "")


# -------------------------------------------------------------------- contradictions of any pool of greenlets

def of_the_broker(worker: Any) -> Iterator[str]:
    """Warnings about messages and connections."""
    conf = worker.app.conf
    if worker.concurrency and worker.concurrency <= (os.cpu_count() or 1) and not getattr(worker, "autoscale", None):
        yield f"no more than {worker.concurrency} tasks run at once; tasks that wait allow many more: -c 1000, say"
    if conf.worker_prefetch_multiplier == 0:
        yield "worker_prefetch_multiplier is 0: the worker takes whole queues into its memory"
    if not conf.broker_pool_limit:
        yield f"broker_pool_limit is {conf.broker_pool_limit}: each task that sends a message opens a connection"
    if conf.worker_cancel_long_running_tasks_on_connection_loss:
        yield ("worker_cancel_long_running_tasks_on_connection_loss is on: tasks with acks_late do not go on when the "
               "broker's connection breaks")
    driver = worker.app.connection_for_read().transport.driver_type
    if driver == "amqp" and not conf.broker_heartbeat:
        yield "broker_heartbeat is 0: a worker that waits for messages does not notice that the broker has vanished"
    if driver == "redis":
        visibility = (conf.broker_transport_options or {}).get("visibility_timeout", VISIBILITY)
        long = [
            task.name for task in _tasks(worker)
            if task.acks_late and (task.time_limit or worker.time_limit or 0) >= visibility
        ]
        if long:
            yield (f"visibility_timeout is {visibility} s, no longer than the time limit of {several(long)}: they are "
                   "delivered again while they run")


def of_limits(worker: Any) -> Iterator[str]:
    """A warning about soft limits that are never raised."""
    never = []
    for task in _tasks(worker):
        soft, hard = task.soft_time_limit or worker.soft_time_limit, task.time_limit or worker.time_limit
        if soft and hard and soft >= hard:
            never.append(task.name)
    if never:
        yield f"the soft time limit of {several(never)} is not below the hard one: it is never raised"


def with_soft_limits(worker: Any) -> list[str]:
    """The names of tasks that have a soft limit."""
    return [task.name for task in _tasks(worker) if task.soft_time_limit or worker.soft_time_limit]


def _tasks(worker: Any) -> list[Any]:
    """The application's own tasks."""
    return [task for name, task in sorted(worker.app.tasks.items()) if not name.startswith("celery.")]


def several(names: list[str]) -> str:
    """The names as text; after the third, how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
