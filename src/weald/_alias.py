"""`import gevent` served by weald, and the only door to weald.compat.

Called by: users (`weald.install_as_gevent()`), the distribution in compat/gevent, weald/__init__.py.
Invariants:
- `gevent.x` is the very module `weald.x`.  `gevent` itself is a thin module that falls through to weald and carries
  gevent's version, for those who compare it.  A real gevent is never shadowed.
- Nothing of weald.compat is imported before somebody imports gevent or asks weald for a name that only gevent has.
  From then on weald behaves as compat/_drop_in.py says, and so do hubs and loops made before.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from weald import _core

__all__ = ["GEVENT_ONLY", "GEVENT_VERSION", "Hub", "Loop", "enter_compat", "hub_class", "install_as_gevent"]

GEVENT_VERSION = "26.9.0"  # the release whose public interface weald follows
# Top-level names that weald has for gevent's sake.
GEVENT_ONLY = frozenset({"fork", "getswitchinterval", "kill", "reinit", "setswitchinterval", "signal_handler"})


class _Gevent(ModuleType):
    """The module `gevent`: weald under that name."""

    __version__ = GEVENT_VERSION
    version_info = (26, 9, 0, "final", 0)
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(import_module("weald"), name)
        except AttributeError:
            text = f"gevent.{name} is not in weald (yet), which serves gevent here"
            if not name.startswith("__"):
                text += import_module("weald.compat._names").module_advice(f"gevent.{name}")
            raise AttributeError(text) from None

    def __dir__(self) -> list[str]:
        return sorted({*dir(import_module("weald")), "__version__", "version_info"})


class Hub(_core.Hub):
    """A hub of a program that has not asked for gevent: written in Python, so that it can become gevent's later."""

    def __getattr__(self, name: str) -> Any:
        text = f"a hub has no attribute {name!r}"
        if not name.startswith("__") and hasattr(import_module("weald.compat.hub").Hub, name):
            # Importing that has made gevent's of this hub.
            return getattr(self, name)
        raise AttributeError(text)


class Loop(_core.EventLoop):
    """A hub's loop, written in Python for the same reason."""


def gevent_leads_here() -> bool:
    """Has gevent been imported, and is it weald?  (By whichever alias: there are others than the one here.)"""
    module = sys.modules.get("gevent")
    return module is not None and (isinstance(module, _Gevent) or module is sys.modules.get("weald"))


def enter_compat() -> None:
    """Behave as gevent from now on, if that is what weald is imported as."""
    if gevent_leads_here():
        import_module("weald.compat._drop_in")


def hub_class() -> type[_core.Hub]:
    """Of hubs, unless somebody has chosen one: called whenever the core makes a hub."""
    from weald._config import config

    enter_compat()
    if config.monitor_thread:  # gevent's hubs know how to be watched
        import_module("weald.compat.hub")
    compat: Any = sys.modules.get("weald.compat.hub")
    return Hub if compat is None else compat.Hub


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.name == "gevent":
            return _Gevent("gevent")
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name == "gevent":
            enter_compat()
            # Programs in C (uWSGI) do not ask the module, but look into its dict.
            names = [*import_module("weald").__all__, *GEVENT_ONLY, "__version__", "version_info"]
            vars(module).update({found: getattr(module, found) for found in names})
        else:
            # importlib looks the name up again afterwards: so the placeholder gives way to the real module.
            sys.modules[name] = _real(name)

    def get_code(self, name: str) -> Any:
        """For `python -m gevent.monkey`."""
        spec = _real(name.removesuffix(".__main__")).__spec__
        assert spec is not None
        found = spec.name + ".__main__" if name.endswith(".__main__") else spec.name
        loader: Any = spec.loader if found == spec.name else _find(found).loader
        return loader.get_code(found)


def _find(name: str) -> ModuleSpec:
    from importlib.util import find_spec

    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    return spec


def _real(name: str) -> ModuleType:
    """weald's module for the name `gevent.x`."""
    wanted = "weald" + name.removeprefix("gevent")
    try:
        return import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name != wanted:
            raise
        hint = import_module("weald.compat._names").module_advice(name)
        raise ModuleNotFoundError(f"{name} is not in weald (yet), which serves gevent here{hint}", name=name) from None


class _CompatFinder(MetaPathFinder):
    """weald._x is weald.compat._x where there is no other."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.rpartition(".")
        if package != "weald" or rest == "compat":
            return None
        try:
            real = import_module(f"weald.compat.{rest}")
        except ModuleNotFoundError as error:
            if error.name != f"weald.compat.{rest}":
                raise
            return None
        return ModuleSpec(name, _CompatLoader(), origin=real.__file__)


class _CompatLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # importlib looks the name up again afterwards: so the placeholder gives way to the real module.
        sys.modules[module.__name__] = import_module("weald.compat." + module.__name__.removeprefix("weald."))


def find_compat_modules() -> None:
    """Have weald's modules in compat/ found as weald.x."""
    sys.meta_path.append(_CompatFinder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "gevent" and not name.startswith("gevent."):
            return None
        if name == "gevent":
            return ModuleSpec(name, _Loader(), origin="weald", is_package=True)
        if name.endswith(".__main__"):
            return ModuleSpec(name, _Loader(), origin=_find("weald" + name.removeprefix("gevent")).origin)
        real = _real(name)
        return ModuleSpec(name, _Loader(), origin=real.__file__, is_package=hasattr(real, "__path__"))


def install_as_gevent() -> None:
    """Make `import gevent` and `gevent.x` give weald and weald.x.  Calling it again does nothing.

    ImportError if a real gevent is imported already: two of them in one process would not know of each other.
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
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
