"""Watches switches with greenlet's trace function: which greenlet runs, and since when.  For _monitor and util.

Called by: util.py, _monitor.py; users, as gevent._tracer.

A tracer works in the thread that made it; it calls the trace function that was set before it.  While there is one,
that thread's waits go through the hub greenlet, where the tracer sees them: otherwise a greenlet that waits alone does
not switch at all.
"""

import sys
import traceback
import weakref
from time import perf_counter
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, settrace

from weald._base.names import more_names
from weald._base.originals import get_original
from weald._core import get_hub_if_exists
from weald.compat._run_info import format_run_info
from weald.compat._util import gmctime

__all__ = ["GreenletTracer", "HubSwitchTracer", "MaxSwitchTracer"]


class GreenletTracer:
    """Counts switches; `did_block_hub` says whether there was none since it was last asked."""

    def __init__(self, hub: Any = None) -> None:
        self.greenlet_switch_counter = 0
        self.active_greenlet: Any = None  # the one last switched to
        self.previous_trace_function: Any = settrace(self)
        self._killed = False
        hub = get_hub_if_exists() if hub is None else hub
        self._traced = (lambda: None) if hub is None else weakref.ref(hub)
        if hub is not None:
            hub.traced += 1

    def kill(self) -> None:
        """Stop tracing.  In the thread that is traced."""
        if not self._killed:
            self._killed = True
            settrace(self.previous_trace_function)
            hub = self._traced()
            if hub is not None:
                hub.traced -= 1
            self.previous_trace_function = None

    def __call__(self, event: str, args: Any) -> None:
        self._trace(event, args)

    def _trace(self, event: str, args: Any) -> None:
        self.greenlet_switch_counter += 1
        self.active_greenlet = args[1] if event in ("switch", "throw") else None
        if self.previous_trace_function is not None:
            self.previous_trace_function(event, args)

    def did_block_hub(self, hub: Any) -> Any:
        """(True, greenlet) if `greenlet` has run all the time since the last call; else something false."""
        active = self.active_greenlet
        switched = self.greenlet_switch_counter
        self.greenlet_switch_counter = 0
        if switched or active is None or active is hub:
            return False
        return True, active

    def ignore_current_greenlet_blocking(self) -> None:
        """Do not report the greenlet that runs now."""
        self.active_greenlet = None

    def monitor_current_greenlet_blocking(self) -> None:
        """Watch the greenlet that runs now, though no switch to it was seen."""
        self.active_greenlet = getcurrent()

    def did_block_hub_report(self, hub: Any, active_greenlet: Any, format_kwargs: dict[str, Any]) -> list[str]:
        """Lines for people."""
        report = [
            "=" * 80,
            f"\n{gmctime()} : Greenlet {active_greenlet} appears to be blocked",
            f"    Reported by {self}",
        ]
        frame = get_original("sys", "_current_frames")().get(hub.thread_ident)
        stack = [f"Unknown: No thread found for hub {hub!r}\n"] if frame is None else traceback.format_stack(frame)
        report.append(f"Blocked Stack (for thread id {hex(hub.thread_ident)}):")
        report.append("".join(stack))
        report.append("Info:")
        report.extend(format_run_info(**format_kwargs))
        return report


class _HubTracer(GreenletTracer):
    def __init__(self, hub: Any, max_blocking_time: float) -> None:
        super().__init__(hub)
        self.max_blocking_time = max_blocking_time
        self.hub = hub

    def kill(self) -> None:
        self.hub = None
        super().kill()


class HubSwitchTracer(_HubTracer):
    """Blocked means: no switch to the hub for `max_blocking_time` seconds."""

    def __init__(self, hub: Any, max_blocking_time: float) -> None:
        super().__init__(hub, max_blocking_time)
        self.last_entered_hub = 0.0

    def _trace(self, event: str, args: Any) -> None:
        super()._trace(event, args)
        if self.active_greenlet is self.hub:
            self.last_entered_hub = perf_counter()

    def did_block_hub(self, hub: Any) -> Any:
        """Return (True, greenlet) if the hub has not run for too long, else False."""
        if perf_counter() - self.last_entered_hub > self.max_blocking_time:
            return True, self.active_greenlet
        return False


class MaxSwitchTracer(_HubTracer):
    """Blocked means: `max_blocking_time` seconds between two switches, time in the hub apart."""

    def __init__(self, hub: Any, max_blocking_time: float) -> None:
        super().__init__(hub, max_blocking_time)
        self.last_switch = perf_counter()
        self.max_blocking = 0.0

    def _trace(self, event: str, args: Any) -> None:
        before = self.active_greenlet
        super()._trace(event, args)
        now = perf_counter()
        if before is not self.hub and before is not None:
            self.max_blocking = max(self.max_blocking, now - self.last_switch)
        self.last_switch = now

    def did_block_hub(self, hub: Any) -> Any:
        """Return (True, greenlet) if a greenlet has run for too long, else False."""
        if self.max_blocking == 0:
            self.max_blocking = perf_counter() - self.last_switch
        if self.max_blocking > self.max_blocking_time:
            return True, self.active_greenlet
        return False


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._tracer")
