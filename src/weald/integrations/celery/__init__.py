"""A Celery worker pool of greenlets: `CELERY_CUSTOM_WORKER_POOL=weald.integrations.celery:TaskPool`, `-P custom`.

Called by: Celery, which imports a custom pool before the app; weald.integrations.celery_command.

Reading `TaskPool` from this package patches the standard library and tells kombu that it runs on greenlets.  So only
worker processes import it; a program that just sends tasks does not.

`pool` keeps the slots, `job` runs one task within its limits, `watchdog` interrupts tasks that compute,
`coroutines` runs `async def` tasks, `forks` cares for children, `replacement` replaces the process.  `consumer` is the
worker's main loop, `amqp` has greenlets share AMQP connections, `fetch` takes messages off Redis, `timer` fires timers.
`results` sets up the result backend, `batches` shares round trips to Redis among tasks.  `announcement` writes the
worker's banner and warnings, `alias_pool` is the pool of the alias.
"""

from typing import Any

from weald import monkey


def __getattr__(name: str) -> Any:
    if name not in ("TaskPool", "Timer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    monkey.patch_all()
    from kombu.utils import compat as kombu

    # Before kombu detects its environment, by which it chooses its poller, and Celery its main loop and how results
    # are awaited.
    kombu._environment = "weald"

    from weald.integrations.celery import amqp
    from weald.integrations.celery.pool import TaskPool
    from weald.integrations.celery.timer import Timer

    amqp.arrange()
    TaskPool.__module__ = __name__  # shown in the worker's banner and statistics
    globals().update(TaskPool=TaskPool, Timer=Timer)
    return globals()[name]
