"""`import gevent` served by weald, and the one door to weald.compat.

Called by: weald/__init__.py, as weald is imported; _distribution.py; users (`weald.install_as_gevent()`).

Importing it fills the hooks that weald's other modules offer: names they lack (`names.look_up`), settings, the classes
of hubs and loops, what patching asks before it begins.

Invariants:
- `gevent.x` and `weald.x` are the same module.  `gevent` itself is a thin module that falls back on weald and has
  gevent's version, for programs that compare it.  A real gevent is never shadowed.
- Until a program imports gevent, or uses a module or a name of weald that only gevent has, only this file's imports of
  weald.compat are imported.  From then on weald behaves as _drop_in.py says, and so do hubs and loops made before.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from weald import _core
from weald._base import names, originals
from weald._base.config import config, set_loop_class
from weald._base.imports import whenever_imported
from weald.compat import _plain, _settings

__all__ = ["GEVENT_VERSION", "install_as_gevent"]

GEVENT_VERSION = "26.9.0"  # the release whose public interface weald follows

# gevent's top-level names: "module:name" in weald.compat.
TOP_LEVEL = {
    "fork": "_fork:fork",
    "getswitchinterval": "_top_level:getswitchinterval",
    "kill": "_top_level:kill",
    "reinit": "hub:reinit",
    "setswitchinterval": "_top_level:setswitchinterval",
    "signal_handler": "hub:signal",
}

# Modules that gevent imports itself, when it, another module of it or a pool is imported, or when it patches: programs
# use them as its attributes.
BROUGHT = frozenset(
    {
        "_compat",
        "_config",
        "_hub_local",
        "_hub_primitives",
        "_ident",
        "_interfaces",
        "_imap",
        "_monitor",
        "_semaphore",
        "_socket3",
        "_socketcommon",
        "_threading",
        "_tracer",
        "_util",
        "_waiter",
        "baseserver",
        "event",
        "events",
        "exceptions",
        "greenlet",
        "hub",
        "local",
        "lock",
        "monkey",
        "os",
        "queue",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "thread",
        "threading",
        "time",
        "timeout",
        "util",
    }
)

# Other projects' modules for gevent, and for each the module of weald's that is imported after it, to change what would
# lose something here.
MENDED = {"celery.concurrency.gevent": "weald.integrations.celery.alias_pool"}

# -------------------------------------------------------------------- hooks


def _look_up(module: str, name: str) -> Any:
    if module in ("weald", "weald.compat"):
        if name in TOP_LEVEL:
            where, _, what = TOP_LEVEL[name].partition(":")
            return getattr(import_module(f"weald.compat.{where}"), what)
        if name in BROUGHT and module == "weald":
            return import_module(f"weald.{name}")
    # Patching asks each source for hooks of names that begin so; weald's modules have none.
    elif not name.startswith("_gevent_"):
        return import_module("weald.compat._names").find(module, name)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _gevent_leads_here() -> bool:
    """Return whether gevent has been imported and is weald, by whichever alias: there are others than the one here."""
    module = sys.modules.get("gevent")
    return module is not None and (isinstance(module, _Gevent) or module is sys.modules.get("weald"))


def _drop_in() -> None:
    """Behave as gevent from now on, if weald is imported by that name."""
    if _gevent_leads_here():
        import_module("weald.compat._drop_in")


def _load_hub_class() -> type[_core.Hub]:
    return import_module("weald.compat.hub").Hub  # type: ignore[no-any-return]


def _load_loop_class() -> type[_core.EventLoop]:
    return import_module("weald.compat.core").loop  # type: ignore[no-any-return]


def _hub_class() -> type[_core.Hub]:
    """Called whenever the core makes a hub."""
    _drop_in()
    if config.monitor_thread:  # gevent's hubs know how to be watched
        _load_hub_class()
    return _plain.hub_class()


class _PatchHooks(originals.Listener):
    """Calls `_gevent_will_monkey_patch` and `_gevent_did_monkey_patch` of the module that the replacements are in."""

    def __init__(self) -> None:
        self._items: dict[str, list[str]] = {}  # the names to patch, by module

    def will_patch_module(self, source: Any, target: ModuleType, items: list[str]) -> bool:
        self._items[target.__name__] = items
        self._call("will", source, target)
        return True

    def did_patch_module(self, source: Any, target: ModuleType) -> None:
        self._call("did", source, target)

    def _call(self, when: str, source: Any, target: ModuleType) -> None:
        hook = getattr(source, f"_gevent_{when}_monkey_patch", None)
        if hook is not None:
            hook(target, self._items[target.__name__], originals.warn)


def _fill_hooks() -> None:
    names.look_up = _look_up
    _settings.add()
    set_loop_class(_load_loop_class)
    _plain.load_hub_class = _load_hub_class
    _core.set_default_hub_class(_hub_class)
    _core.set_event_loop_class(_plain.Loop)
    originals.before_patching.append(_drop_in)
    originals.listeners.append(_PatchHooks())
    originals.left_alone.add("gevent")
    originals.arguments_key = "_gevent_saved_patch_all_module_settings"
    sys.meta_path.append(_CompatFinder())


# -------------------------------------------------------------------- finders


class _Version(NamedTuple):
    """gevent's `version_info`, whose parts have names as those of sys.version_info."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int


class _Gevent(ModuleType):
    """The module `gevent`: weald under that name."""

    __version__ = GEVENT_VERSION
    version_info = _Version(26, 9, 0, "final", 0)

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(sys.modules["weald"], name)
        except AttributeError:
            text = f"gevent.{name} is not in weald (yet), which serves gevent here"
            if not name.startswith("__"):
                text += import_module("weald.compat._names").module_advice(f"gevent.{name}")
            raise AttributeError(text) from None

    def __dir__(self) -> list[str]:
        return sorted({*dir(sys.modules["weald"]), "__version__", "version_info"})


class _GeventLoader(Loader):
    """Makes the module `gevent`."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Gevent("gevent")

    def exec_module(self, module: ModuleType) -> None:
        _drop_in()
        # Programs in C (uWSGI) read the module's dict, not its attributes.
        found = [*sys.modules["weald"].__all__, *TOP_LEVEL]
        vars(module)["__all__"] = sorted({*found} - {"install_as_gevent"})
        # For programs that list a package's modules (pkgutil).
        vars(module)["__path__"] = [*sys.modules["weald"].__path__, *sys.modules["weald.compat"].__path__]
        vars(module).update({name: getattr(module, name) for name in [*found, "__version__", "version_info"]})


class _OtherName(Loader):
    """Loads a module of weald by another name: both names stand for one module."""

    def __init__(self, real: ModuleSpec) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # importlib looks the name up again afterwards: so the placeholder gives way to the real module.
        sys.modules[module.__name__] = import_module(self._real.name)

    def get_code(self, name: str) -> Any:
        """For `python -m`."""
        loader: Any = self._real.loader
        return loader.get_code(self._real.name)

    def spec(self, name: str) -> ModuleSpec:
        """A spec of this loader; what lies in a package is found by the package's other name, too."""
        package = self._real.submodule_search_locations is not None
        return ModuleSpec(name, self, origin=self._real.origin, is_package=package)


class _CompatFinder(MetaPathFinder):
    """Finds `weald.x` as `weald.compat.x` where there is no other."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.rpartition(".")
        if package != "weald" or rest == "compat":
            return None
        real = find_spec(f"weald.compat.{rest}")
        return None if real is None else _OtherName(real).spec(name)


class _GeventFinder(MetaPathFinder):
    """Finds `gevent`, and `gevent.x` as `weald.x`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = name.partition(".")
        if top != "gevent":
            return None
        if not rest:
            return ModuleSpec(name, _GeventLoader(), origin="weald", is_package=True)
        real = find_spec(f"weald.{rest}")
        if real is not None:
            return _OtherName(real).spec(name)
        # An import gets an error that helps; a program that merely asks whether there is such a module (importlib's
        # find_spec) gets None.
        if sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            hint = import_module("weald.compat._names").module_advice(name)
            raise ModuleNotFoundError(f"{name} is not in weald (yet), which serves gevent here{hint}", name=name)
        return None


def _mend(module: ModuleType) -> None:
    """Change a module of `MENDED`, which has been imported."""
    if _gevent_leads_here():
        import_module(MENDED[module.__name__])


def install_as_gevent() -> None:
    """Make `import gevent` and `gevent.x` give weald and weald.x.  Calling it again does nothing.

    Raises ImportError if a real gevent is imported already: two of them in one process would not know of each other.
    """
    present = sys.modules.get("gevent")
    if present is not None and not isinstance(present, _Gevent):
        if getattr(present, "__weald__", False):
            del sys.modules["gevent"]
        else:
            where = getattr(present, "__file__", None) or "this process"
            raise ImportError(
                f"weald cannot serve as gevent: the real gevent is imported already ({where}). "
                "Call weald.install_as_gevent() before anything imports gevent, or uninstall gevent."
            )
    if not any(isinstance(finder, _GeventFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GeventFinder())
        for name in MENDED:
            whenever_imported(name, _mend)


_fill_hooks()
