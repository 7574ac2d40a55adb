from typing import Any

class Result:
    """An awaitable that is done.  It has a coroutine's methods, so that it may be made a task."""

    def __await__(self) -> Any: ...

class Waiting:
    """An awaitable that waits for a Future, with a coroutine's methods."""

    def __await__(self) -> Any: ...
