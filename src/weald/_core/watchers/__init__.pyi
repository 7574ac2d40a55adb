# Users meet watchers through `hub.loop`, whose types are in the stub of `weald._core`.
from typing import Any

def __getattr__(name: str) -> Any: ...
