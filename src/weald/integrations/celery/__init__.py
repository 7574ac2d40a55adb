"""A Celery worker pool of greenlets: `CELERY_CUSTOM_WORKER_POOL=weald.integrations.celery:TaskPool`, `-P custom`.

Called by: Celery, which imports a custom pool before the app; weald.integrations.celery_command.

Asking this package for TaskPool patches the standard library and tells kombu that it runs on greenlets.  So it is for
worker processes only; a program that merely sends tasks does not import it.

`pool` keeps the slots, `job` runs one task within its limits, `watchdog` interrupts tasks that do not wait,
`coroutines` runs `async def` tasks, `replacement` replaces the process.  `consumer` is the worker's main loop, `fetch`
takes messages off Redis, `timer` fires timers.  `results` arranges the result backend, `batches` shares round trips to
Redis among tasks.
"""

from typing import Any

from weald import monkey


def __getattr__(name: str) -> Any:
    if name not in ("TaskPool", "Timer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    monkey.patch_all()
    from kombu.utils import compat as kombu

    # Before kombu looks for itself: it chooses its poller, and Celery its main loop and how results are awaited.
    kombu._environment = "weald"

    from weald.integrations.celery import amqp
    from weald.integrations.celery.pool import TaskPool
    from weald.integrations.celery.timer import Timer

    amqp.arrange()
    TaskPool.__module__ = __name__  # what the worker's banner and statistics show
    globals().update(TaskPool=TaskPool, Timer=Timer)
    return globals()[name]
