"""gevent.util: reports of running and waiting greenlets for people to read, and small helpers.

Called by: users (gevent.util, weald.util).
"""

import functools
from collections.abc import Callable
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any

from weald._base.names import more_names
from weald._core import get_hub
from weald.compat import _tracer
from weald.compat._run_info import GreenletTree, dump_stacks, format_run_info, print_run_info

__all__ = ["GreenletTree", "assert_switches", "format_run_info", "print_run_info", "wrap_errors"]

class wrap_errors:
    """`wrap_errors(errors, function)` calls function, but returns what it raises of the classes `errors`.

    For greenlets: an exception that leaves one is reported.
    """

    def __init__(self, errors: Any, func: Callable[..., Any]) -> None:
        self.__errors = errors
        self.__func = func
        functools.update_wrapper(self, func)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.__func(*args, **kwargs)
        except self.__errors as error:
            return error

    def __str__(self) -> str:
        return str(self.__func)

    def __repr__(self) -> str:
        return repr(self.__func)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func, name)


# -------------------------------------------------------------------- tests and debugging


class _FailedToSwitch(AssertionError):
    pass


class assert_switches:
    """`with assert_switches():` raises AssertionError at its end if the block did not switch greenlets.

    With `max_blocking_time` seconds the block may go without for so long; `hub_only` counts only switches to the
    hub.  An exception of the block goes its way.
    """

    hub: Any = None  # while the block runs
    tracer: Any = None

    def __init__(self, max_blocking_time: float | None = None, hub_only: bool = False) -> None:
        self.max_blocking_time = max_blocking_time
        self.hub_only = hub_only
        self._entered = 0.0

    def __enter__(self) -> "assert_switches":
        self.hub = get_hub()
        if not self.max_blocking_time:
            self.tracer = _tracer.GreenletTracer(self.hub)
        elif self.hub_only:
            self.tracer = _tracer.HubSwitchTracer(self.hub, self.max_blocking_time)
        else:
            self.tracer = _tracer.MaxSwitchTracer(self.hub, self.max_blocking_time)
        self._entered = perf_counter()
        self.tracer.monitor_current_greenlet_blocking()
        return self

    def __exit__(self, t: Any, v: Any, tb: Any) -> None:
        hub, self.hub = self.hub, None
        tracer, self.tracer = self.tracer, None
        tracer.kill()
        if t is not None:
            return
        blocked = tracer.did_block_hub(hub)
        if not blocked:
            return
        whereto = "To the hub" if self.hub_only else "To any greenlet"
        allowed = f" (max allowed {self.max_blocking_time:.4f} seconds)" if self.max_blocking_time else ""
        report = "\n".join(tracer.did_block_hub_report(hub, blocked[1], {}))
        raise _FailedToSwitch(f"{whereto} in {perf_counter() - self._entered:.4f} seconds{allowed}\n{report}")


def clear_stack_frames(frame: FrameType | None) -> None:
    """Drop the local variables of `frame` and its callers, as far as they do not run."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:
            pass
        frame = frame.f_back


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.util")
