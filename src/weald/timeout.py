"""Timeout: an exception that is raised in the greenlet that started it, unless cancelled in time."""

from typing import TYPE_CHECKING

from weald._core import Timeout, with_timeout
from weald._missing import gevent_names

__all__ = ["Timeout", "with_timeout"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
