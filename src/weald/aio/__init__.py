"""asyncio on the hub: coroutines and greenlets in one thread, on one poll, each calling the other.

`run(main())` and `new_event_loop()` are asyncio's, on weald's event loop.  See docs/aio.md.

Called by: users.
"""

from weald.aio.loop import EventLoop, new_event_loop, run

__all__ = ["EventLoop", "new_event_loop", "run"]
