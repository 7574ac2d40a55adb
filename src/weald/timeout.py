"""Timeout: an exception that is raised in the greenlet that started it, unless cancelled in time."""

from weald._core import Timeout, with_timeout

__all__ = ["Timeout", "with_timeout"]
