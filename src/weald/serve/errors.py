"""What `weald serve` says when it cannot do what it was asked to.  Called by: every room of weald.serve."""

__all__ = ["ConfigError"]


class ConfigError(Exception):
    """What was asked for cannot be done; the text says why."""
