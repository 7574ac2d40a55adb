"""The exception for options that cannot be carried out.  Called by: every module of weald.serve."""

__all__ = ["ConfigError"]


class ConfigError(Exception):
    """An option is wrong or cannot be carried out; the text says why."""
