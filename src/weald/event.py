"""Event and AsyncResult: one greenlet or thread tells others that something happened."""

from typing import TYPE_CHECKING

from weald._core import AsyncResult, Event
from weald._missing import gevent_names

__all__ = ["AsyncResult", "Event"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
