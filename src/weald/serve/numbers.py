"""Numbers in the texts of options.

Called by: listeners.py, process.py, syslog.py.
"""

__all__ = ["parse_number", "parse_port"]


def parse_number(text: str, digits: int) -> int | None:
    """Return the number that `text` is, in at most so many ASCII digits; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def parse_port(text: str) -> int | None:
    """Return the port that `text` is, None if it is none."""
    number = parse_number(text, 9)
    return number if number is not None and number <= 65535 else None
