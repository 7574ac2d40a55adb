def next_frame(data: bytes, at: int, alone: bool, longest: int) -> tuple[int, str | bytes | None]:
    """Parse the client's frame that begins at `at`; returns its end and its message, a str or bytes.

    The message is None if the frame is no whole message, or is compressed, longer than `longest` bytes or incomplete,
    and if `alone` is false.  The end may then lie beyond that of `data`; it is 0 if the frame's head is incomplete.
    Raises UnicodeDecodeError for a text that is not UTF-8.
    """

def frame_of(message: str | bytes) -> bytes:
    """Return the frame of a server with the whole of `message`, a str or bytes, not compressed."""
