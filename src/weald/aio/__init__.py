"""asyncio on the hub: coroutines and greenlets in one thread, on one poll, each calling the other.

`run(main())` and `new_event_loop()` are asyncio's, on weald's event loop.  A greenlet waits for
a coroutine with `await_`, a coroutine for blocking code with `await to_greenlet(...)`.  See docs/aio.md.

Called by: users; weald.monkey, to make it asyncio's loop; weald.integrations.celery, for `async def` tasks.
"""

from weald.aio.bridge import await_
from weald.aio.calls import to_greenlet
from weald.aio.loop import EventLoop, new_event_loop, run

__all__ = ["EventLoop", "await_", "new_event_loop", "run", "to_greenlet"]
