"""Event and AsyncResult: one greenlet or thread tells others that something happened."""

from weald._core import AsyncResult, Event

__all__ = ["AsyncResult", "Event"]
