from typing import Any

class Result:
    """An awaitable that is done.  It has what a coroutine has, so that it may be made a task."""

    def __await__(self) -> Any: ...

class Waiting:
    """An awaitable that waits for a Future, with what a coroutine has."""

    def __await__(self) -> Any: ...
