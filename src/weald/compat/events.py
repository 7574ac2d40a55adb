"""gevent.events: what happens to the process, told to subscribers and to plug-ins.

Called by: users, as gevent.events; _interfaces.py; _monitor.py.

A subscriber is a callable in `subscribers`; it gets the event.  Plug-ins are the entry points of the groups that
the event classes name.  With zope.event installed `subscribers` is its list; with zope.interface the `I…` classes
are its interfaces, else plain ones.

Importing this connects weald.monkey, which knows nothing of gevent, with these events.
"""

from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from weald import monkey
from weald._base.names import more_names

try:
    from zope.event import notify, subscribers
except ImportError:
    subscribers: list[Callable[[Any], object]] = []  # type: ignore[no-redef]

    def notify(event: Any) -> None:
        """Call every subscriber; what one raises is raised here, and the rest are not called."""
        for subscriber in subscribers:
            subscriber(event)


try:
    from zope.interface import Attribute, Interface, implementer
except ImportError:

    class Interface:  # type: ignore[no-redef]
        pass

    def Attribute(text: str) -> Any:
        return text

    def implementer(*interfaces: Any) -> Callable[[Any], Any]:
        return lambda cls: cls


__all__ = [
    "Attribute",
    "DoNotPatch",
    "EventLoopBlocked",
    "GeventDidPatchAllEvent",
    "GeventDidPatchBuiltinModulesEvent",
    "GeventDidPatchModuleEvent",
    "GeventPatchEvent",
    "GeventWillPatchAllEvent",
    "GeventWillPatchEvent",
    "GeventWillPatchModuleEvent",
    "IEventLoopBlocked",
    "IGeventDidPatchAllEvent",
    "IGeventDidPatchBuiltinModulesEvent",
    "IGeventDidPatchEvent",
    "IGeventDidPatchModuleEvent",
    "IGeventPatchEvent",
    "IGeventWillPatchAllEvent",
    "IGeventWillPatchEvent",
    "IGeventWillPatchModuleEvent",
    "IMemoryUsageThresholdExceeded",
    "IMemoryUsageUnderThreshold",
    "IPeriodicMonitorThread",
    "IPeriodicMonitorThreadStartedEvent",
    "Interface",
    "MemoryUsageThresholdExceeded",
    "MemoryUsageUnderThreshold",
    "PeriodicMonitorThreadStartedEvent",
    "implementer",
    "notify",
    "notify_and_call_entry_points",
    "subscribers",
]


def notify_and_call_entry_points(event: Any) -> None:
    """`notify(event)`, then load and call every plug-in of its group."""
    notify(event)
    for plugin in metadata.entry_points(group=event.ENTRY_POINT_NAME):
        plugin.load()(event)


# -------------------------------------------------------------------- the monitoring thread


class IPeriodicMonitorThread(Interface):  # type: ignore[misc]
    """A native thread that calls functions now and then to see how a hub is doing."""

    # A method of an interface has no self.
    def add_monitoring_function(function: Any, period: Any) -> None:
        """Call `function(hub)` in that thread every `period` seconds; None takes it back."""


class IPeriodicMonitorThreadStartedEvent(Interface):  # type: ignore[misc]
    """A hub has started its monitoring thread."""

    monitor = Attribute("the IPeriodicMonitorThread")


@implementer(IPeriodicMonitorThreadStartedEvent)
class PeriodicMonitorThreadStartedEvent:
    """See IPeriodicMonitorThreadStartedEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.hub.periodic_monitor_thread_started"

    def __init__(self, monitor: Any) -> None:
        self.monitor = monitor


class IEventLoopBlocked(Interface):  # type: ignore[misc]
    """A greenlet has not switched for long.  Told in the monitoring thread."""

    greenlet = Attribute("the greenlet that seems to block")
    blocking_time = Attribute("about how many seconds")
    info = Attribute("lines of the report, a list that may be changed")
    hub = Attribute("the hub that is blocked, or None")


@implementer(IEventLoopBlocked)
class EventLoopBlocked:
    """See IEventLoopBlocked."""

    def __init__(self, greenlet: Any, blocking_time: float, info: list[str], *, hub: Any = None) -> None:
        self.greenlet = greenlet
        self.blocking_time = blocking_time
        self.info = info
        self.hub = hub


class IMemoryUsageThresholdExceeded(Interface):  # type: ignore[misc]
    """The process uses more memory than it may, and more than at the last look."""

    mem_usage = Attribute("bytes used")
    max_allowed = Attribute("bytes allowed")
    memory_info = Attribute("psutil's figures")


class _MemoryEvent:
    def __init__(self, mem_usage: int, max_allowed: int, memory_info: Any) -> None:
        self.mem_usage = mem_usage
        self.max_allowed = max_allowed
        self.memory_info = memory_info

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} used={self.mem_usage} max={self.max_allowed} details={self.memory_info!r}>"
        )


@implementer(IMemoryUsageThresholdExceeded)
class MemoryUsageThresholdExceeded(_MemoryEvent):
    """See IMemoryUsageThresholdExceeded."""


class IMemoryUsageUnderThreshold(Interface):  # type: ignore[misc]
    """The process uses no more memory than it may again."""

    mem_usage = Attribute("bytes used")
    max_allowed = Attribute("bytes allowed")
    max_memory_usage = Attribute("bytes used at the last look")
    memory_info = Attribute("psutil's figures")


@implementer(IMemoryUsageUnderThreshold)
class MemoryUsageUnderThreshold(_MemoryEvent):
    """See IMemoryUsageUnderThreshold."""

    def __init__(self, mem_usage: int, max_allowed: int, memory_info: Any, max_usage: int) -> None:
        super().__init__(mem_usage, max_allowed, memory_info)
        self.max_memory_usage = max_usage


# -------------------------------------------------------------------- monkey patching


class IGeventPatchEvent(Interface):  # type: ignore[misc]
    """Something is patched."""

    source = Attribute("where the replacements are")
    target = Attribute("what is patched")


@implementer(IGeventPatchEvent)
class GeventPatchEvent:
    """See IGeventPatchEvent."""

    def __init__(self, source: Any, target: Any) -> None:
        self.source = source
        self.target = target

    def __repr__(self) -> str:
        return f"<{type(self).__name__} source={self.source!r} target={self.target!r} at {id(self):x}>"


class IGeventWillPatchEvent(IGeventPatchEvent):
    """Before something is patched; a subscriber that raises DoNotPatch prevents it."""


class DoNotPatch(BaseException):
    """For subscribers to the `…Will…` events: leave that alone."""


@implementer(IGeventWillPatchEvent)
class GeventWillPatchEvent(GeventPatchEvent):
    """See IGeventWillPatchEvent."""


class IGeventDidPatchEvent(IGeventPatchEvent):
    """After something was patched."""


@implementer(IGeventDidPatchEvent)
class GeventDidPatchEvent(GeventPatchEvent):
    """See IGeventDidPatchEvent."""


class IGeventWillPatchModuleEvent(IGeventWillPatchEvent):
    """`source` and `target` are modules."""

    module_name = Attribute("name of the target")
    target_item_names = Attribute("names to replace, a list that may be changed")


@implementer(IGeventWillPatchModuleEvent)
class GeventWillPatchModuleEvent(GeventWillPatchEvent):
    """See IGeventWillPatchModuleEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.will_patch_module"

    def __init__(self, module_name: str, source: Any, target: Any, items: Any) -> None:
        super().__init__(source, target)
        self.module_name = module_name
        self.target_item_names = items


class IGeventDidPatchModuleEvent(IGeventDidPatchEvent):
    """`source` and `target` are modules."""

    module_name = Attribute("name of the target")


@implementer(IGeventDidPatchModuleEvent)
class GeventDidPatchModuleEvent(GeventDidPatchEvent):
    """See IGeventDidPatchModuleEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_module"

    def __init__(self, module_name: str, source: Any, target: Any) -> None:
        super().__init__(source, target)
        self.module_name = module_name


class IGeventWillPatchAllEvent(IGeventWillPatchEvent):
    """`patch_all` begins.  `source` and `target` mean nothing."""

    patch_all_arguments = Attribute("its arguments, a dict")
    patch_all_kwargs = Attribute("its extra arguments, a dict")

    def will_patch_module(module_name: str) -> Any:
        """Whether that module will be patched."""


class _PatchAll:
    def __init__(self, patch_all_arguments: dict[str, Any], patch_all_kwargs: dict[str, Any]) -> None:
        super().__init__(None, None)  # type: ignore[call-arg]
        self._patch_all_arguments = patch_all_arguments
        self._patch_all_kwargs = patch_all_kwargs

    @property
    def patch_all_arguments(self) -> dict[str, Any]:
        return self._patch_all_arguments.copy()

    @property
    def patch_all_kwargs(self) -> dict[str, Any]:
        return self._patch_all_kwargs.copy()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._patch_all_arguments!r} at {id(self):x}>"


@implementer(IGeventWillPatchAllEvent)
class GeventWillPatchAllEvent(_PatchAll, GeventWillPatchEvent):
    """See IGeventWillPatchAllEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.will_patch_all"

    def will_patch_module(self, module_name: str) -> Any:
        """Return whether that module will be patched; None if `patch_all` does not know it."""
        return self.patch_all_arguments.get(module_name)


class IGeventDidPatchBuiltinModulesEvent(IGeventDidPatchEvent):
    """The standard library is patched: the time to patch what third parties made."""

    patch_all_arguments = Attribute("arguments of patch_all, a dict")
    patch_all_kwargs = Attribute("its extra arguments, a dict")


@implementer(IGeventDidPatchBuiltinModulesEvent)
class GeventDidPatchBuiltinModulesEvent(_PatchAll, GeventDidPatchEvent):
    """See IGeventDidPatchBuiltinModulesEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_builtins"


class IGeventDidPatchAllEvent(IGeventDidPatchEvent):
    """Everything is patched, by plug-ins, too."""


@implementer(IGeventDidPatchAllEvent)
class GeventDidPatchAllEvent(_PatchAll, GeventDidPatchEvent):
    """See IGeventDidPatchAllEvent."""

    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_all"


class _Listener(monkey.Listener):
    """Makes weald.monkey's calls into events."""

    def will_patch_all(self, arguments: dict[str, Any], extra: dict[str, Any]) -> bool:
        return self._asked(GeventWillPatchAllEvent(arguments, extra))

    def will_patch_module(self, source: Any, target: ModuleType, items: list[str]) -> bool:
        return self._asked(GeventWillPatchModuleEvent(target.__name__, source, target, items))

    def did_patch_module(self, source: Any, target: ModuleType) -> None:
        notify_and_call_entry_points(GeventDidPatchModuleEvent(target.__name__, source, target))

    def did_patch_all(self, arguments: dict[str, Any], extra: dict[str, Any]) -> None:
        notify_and_call_entry_points(GeventDidPatchBuiltinModulesEvent(arguments, extra))
        notify_and_call_entry_points(GeventDidPatchAllEvent(arguments, extra))

    @staticmethod
    def _asked(event: Any) -> bool:
        try:
            notify_and_call_entry_points(event)
        except DoNotPatch:
            return False
        return True


monkey.listeners.append(_Listener())


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.events")
