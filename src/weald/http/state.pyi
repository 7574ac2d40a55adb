from collections.abc import Iterable
from typing import Any

from weald.http.limits import Limits
from weald.http.protocol import HeadParser

class ServerState:
    """State that the connections of a server share.

    `draining` is true while the server stops: clients are told to connect again.  `served` is the number of responses
    that were counted.
    """

    limits: Limits
    parser: HeadParser
    buffer: bytearray
    draining: bool
    served: int
    def __init__(self, limits: Limits) -> None: ...
    def count_in(self, buffer: Any, bounds: Iterable[float]) -> None:
        """Count responses in `buffer` from now on, a writable buffer of doubles.

        Its doubles are: the numbers of responses with a status of 0xx (none was sent) to 5xx; the seconds that all
        responses took together; the numbers of those that took up to bounds[0] seconds, up to bounds[1], …, and longer
        than the last bound.  Raises ValueError if the buffer is too small or not of doubles, or if responses are being
        counted already, BufferError if it cannot be written to.
        """
    def count(self, code: int, seconds: float) -> Any:
        """Count a response of the status `code` (negative: sending it failed; 0: none was sent) that took `seconds`.

        Raises ValueError before `count_in` was called.
        """
