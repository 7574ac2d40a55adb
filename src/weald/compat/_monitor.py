"""gevent's monitoring thread: a native thread that reports greenlets which do not switch, and memory.

Called by: hub.py; users, as gevent._monitor.

Made by Hub.start_periodic_monitoring_thread; `config.monitor_thread` and its neighbours say what it does.
"""

import os
import sys
import warnings
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from weald._base.config import config
from weald._base.names import more_names
from weald._base.originals import get_original
from weald.compat._compat import get_this_psutil_process
from weald.compat._tracer import GreenletTracer
from weald.compat.events import (
    EventLoopBlocked,
    IPeriodicMonitorThread,
    MemoryUsageThresholdExceeded,
    MemoryUsageUnderThreshold,
    PeriodicMonitorThreadStartedEvent,
    implementer,
    notify,
    notify_and_call_entry_points,
)

__all__ = ["PeriodicMonitoringThread"]

_get_ident, _start_new_thread = get_original("_thread", ["get_ident", "start_new_thread"])
_sleep = get_original("time", "sleep")


class MonitorWarning(RuntimeWarning):
    """Something cannot be monitored."""


class _Entry:
    """A function to call every `period` seconds."""

    __slots__ = ("function", "last_run_time", "period")

    def __init__(self, function: Callable[[Any], object], period: float) -> None:
        self.function = function
        self.period = period
        self.last_run_time = 0.0

    def __repr__(self) -> str:
        return repr((self.function, self.period, self.last_run_time))


@implementer(IPeriodicMonitorThread)
class PeriodicMonitoringThread:
    """Watches `hub`; it must be made in that hub's thread.  `kill()` ends it."""

    inactive_sleep_time = 2.0  # seconds to sleep when there is nothing to do
    min_sleep_time = 0.005
    min_memory_monitor_period = 2

    def __init__(self, hub: Any) -> None:
        self._hub = weakref.ref(hub, lambda _: self.kill())
        self.should_run = True
        self._memory_exceeded = 0
        self._greenlet_tracer = GreenletTracer(hub)
        self._monitoring_functions = [_Entry(self.monitor_blocking, config.max_blocking_time)]
        self.pid = os.getpid()
        self.monitor_thread_ident = _start_new_thread(self, ())

    @property
    def hub(self) -> Any:
        """The hub that is watched; None once it is gone."""
        return self._hub()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} in thread {self.monitor_thread_ident:#x} for {self.hub!r}>"

    def monitoring_functions(self) -> list[_Entry]:
        """The functions that are called, and how often."""
        self._monitoring_functions[0].period = config.max_blocking_time
        return self._monitoring_functions

    def add_monitoring_function(self, function: Callable[[Any], object], period: float | None) -> None:
        """Call `function(hub)` in this thread about every `period` seconds; with None, no longer."""
        if not callable(function):
            raise ValueError("function must be callable")
        if period is not None and period <= 0:
            raise ValueError("Period must be positive.")
        entries = self._monitoring_functions
        for i, entry in enumerate(entries):
            if entry.function == function:
                replaced = [] if period is None else [_Entry(function, period)]
                self._monitoring_functions = [*entries[:i], *replaced, *entries[i + 1 :]]
                return
        if period is not None:
            self._monitoring_functions = [*entries, _Entry(function, period)]

    def calculate_sleep_time(self) -> float:
        """Return the seconds to sleep before the next check: the shortest period."""
        shortest = min((entry.period for entry in self._monitoring_functions if entry.period), default=0)
        return max(shortest, self.min_sleep_time) if shortest > 0 else self.inactive_sleep_time

    def kill(self) -> None:
        """End, soon, and stop tracing."""
        if self.should_run:
            self.should_run = False
            self._greenlet_tracer.kill()

    def _on_fork(self) -> None:
        if self.pid != os.getpid():
            self.pid = os.getpid()
            self.monitor_thread_ident = _start_new_thread(self, ())

    def __call__(self) -> None:
        getcurrent().gevent_monitoring_thread = weakref.ref(self)  # type: ignore[attr-defined]
        try:
            while self.should_run:
                functions = self.monitoring_functions()
                _sleep(self.calculate_sleep_time())
                hub = self.hub
                if hub is None:
                    self.kill()
                if self.should_run:
                    self._run(functions, hub)
                del hub
        except SystemExit:
            pass
        except BaseException:
            # A daemon: at the interpreter's end there is nothing left to watch.
            hub = self.hub
            if sys is not None and sys.stderr is not None and hub is not None:
                hub.print_exception(self, *sys.exc_info())

    def _run(self, functions: list[_Entry], hub: Any) -> None:
        now = perf_counter()
        for entry in functions:
            if entry.period and entry.last_run_time + entry.period <= now:
                entry.last_run_time = now
                entry.function(hub)

    def monitor_blocking(self, hub: Any) -> Any:
        """Report the greenlet that has not switched since the last check, if there is one."""
        blocked = self._greenlet_tracer.did_block_hub(hub)
        if not blocked:
            return None
        greenlet = blocked[1]
        report = self._greenlet_tracer.did_block_hub_report(
            hub, greenlet, {"greenlet_stacks": False, "current_thread_ident": self.monitor_thread_ident}
        )
        report[2] = f"    Reported by {self}"
        # Subscribers may change the report.
        notify(EventLoopBlocked(greenlet, config.max_blocking_time, report, hub=hub))
        return self._show_blocking_report(hub, report, greenlet)

    def _show_blocking_report(self, hub: Any, report: list[str], greenlet: Any) -> Any:
        if config.print_blocking_reports and hub.exception_stream:
            for line in report:
                print(line, file=hub.exception_stream)
        return greenlet, report

    def ignore_current_greenlet_blocking(self) -> None:
        """Do not report the greenlet that runs now."""
        self._greenlet_tracer.ignore_current_greenlet_blocking()

    def monitor_current_greenlet_blocking(self) -> None:
        """Report the greenlet that runs now if it does not switch."""
        self._greenlet_tracer.monitor_current_greenlet_blocking()

    def can_monitor_memory_usage(self) -> bool:
        """Return whether psutil is installed."""
        return get_this_psutil_process() is not None

    def install_monitor_memory_usage(self) -> None:
        """Watch memory, too, if psutil is installed; warn if it is not."""
        if not self.can_monitor_memory_usage():
            warnings.warn("Unable to monitor memory usage. Install psutil.", MonitorWarning, stacklevel=2)
            return
        period = max(config.memory_monitor_period, self.min_memory_monitor_period)
        self.add_monitoring_function(self.monitor_memory_usage, period)

    def monitor_memory_usage(self, hub: Any) -> Any:
        """Tell subscribers when the process passes `config.max_memory_usage`, upwards or downwards."""
        allowed = config.max_memory_usage
        if not allowed:
            return -1
        info = get_this_psutil_process().memory_full_info()
        used = getattr(info, "uss", 0) or info.rss
        event: Any = None
        if used > allowed:
            if used > self._memory_exceeded:
                event = MemoryUsageThresholdExceeded(used, allowed, info)
                notify(event)
            self._memory_exceeded = used
        elif self._memory_exceeded:
            event = MemoryUsageUnderThreshold(used, allowed, info, self._memory_exceeded)
            notify(event)
            self._memory_exceeded = 0
        return event


def start(hub: Any) -> None:
    """Give `hub`, the current thread's, its monitoring thread."""
    monitor = hub.periodic_monitoring_thread = PeriodicMonitoringThread(hub)
    if hub.main_hub:
        monitor.install_monitor_memory_usage()
    notify_and_call_entry_points(PeriodicMonitorThreadStartedEvent(monitor))


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._monitor")
