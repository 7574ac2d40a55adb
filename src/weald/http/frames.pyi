def next_frame(data: bytes, at: int, alone: bool, longest: int) -> tuple[int, str | bytes | None]:
    """Look at the frame of a client that begins at `at`.

    Returns where it ends and its message, a str or bytes, if it is a whole one that has come as a whole: not compressed
    and of `longest` bytes at most.  The message is None for other frames, and if `alone` is false; their end may lie
    behind that of `data`.  The end is 0 if not even the frame's head is there.
    Raises UnicodeDecodeError for a text that is not UTF-8.
    """

def frame_of(message: str | bytes) -> bytes:
    """Return the frame of a server with the whole of `message`, a str or bytes, not compressed."""
