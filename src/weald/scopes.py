"""Scopes: blocks with a deadline, blocks that can be cancelled, and tasks that end before their block does.

Called by: users.

The semantics are trio's, for blocking code.
"""

from weald._core import (
    Cancelled,
    CancelScope,
    TaskGroup,
    current_effective_deadline,
    current_time,
    fail_after,
    move_on_after,
)

__all__ = [
    "CancelScope",
    "Cancelled",
    "TaskGroup",
    "current_effective_deadline",
    "current_time",
    "fail_after",
    "move_on_after",
]
