"""Gathering bytes that come in pieces.

Called by: weald.http.body, weald.subprocess, pipes.py.
"""

from collections.abc import Iterator
from io import BytesIO

_FEW = 4  # pieces, which are of 64 KiB where there are many


class Gathered:
    """Bytes that come in pieces.

    A few are joined when they are asked for.  More go into one buffer that grows, because pieces and what is joined
    from them would have every byte in memory twice, and memory that is used for the first time is slow.
    """

    __slots__ = ("_bytes", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._bytes: BytesIO | None = None  # what came before `_pieces`

    def append(self, piece: bytes) -> None:
        """Add `piece`."""
        if not piece:
            return
        self._size += len(piece)
        if self._bytes is not None:
            self._bytes.write(piece)
            return
        self._pieces.append(piece)
        if len(self._pieces) == _FEW:
            self._bytes = BytesIO()
            self._bytes.writelines(self._pieces)
            self._pieces.clear()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """For `b"".join`, which returns a single bytes object unchanged."""
        yield self.getvalue()

    def getvalue(self) -> bytes:
        """All of them, joined."""
        return b"".join(self._pieces) if self._bytes is None else self._bytes.getvalue()
