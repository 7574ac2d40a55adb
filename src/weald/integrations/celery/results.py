"""The worker's result backend: one for all greenlets, with few connections, and who awaits results.

Called by: pool.py.

Celery keeps a backend per thread, here per task: a connection for each result.  One backend is shared instead
(`result_backend_thread_safe`); its Redis connections are bounded, and results share round trips.
"""

from functools import partial
from typing import Any

from celery.backends.asynchronous import greenletDrainer, register_drainer

from weald._core import Event, Greenlet, sleep, spawn
from weald.integrations.celery.batches import batch_results

__all__ = ["share_backend"]


@register_drainer("weald")
class _Drainer(greenletDrainer):
    """One greenlet reads results for all that wait."""

    def spawn(self, func: Any) -> Greenlet:
        greenlet = spawn(func)
        sleep(0)
        return greenlet

    def _event(self) -> Event:
        return Event()


def share_backend(app: Any, connections: int) -> None:
    """Make `app` use one result backend for all greenlets, with at most `connections` connections to Redis."""
    if not app.conf.get("result_backend_thread_safe"):
        app.conf.result_backend_thread_safe = True
        vars(app._local).pop("backend", None)
    backend = app.backend
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return
    if isinstance(backend, RedisBackend) and type(backend)._get_pool is RedisBackend._get_pool:
        backend.connparams["max_connections"] = backend.max_connections or connections
        backend._ConnectionPool = partial(backend.redis.BlockingConnectionPool, timeout=None)
        vars(backend).pop("client", None)
        batch_results(backend)
