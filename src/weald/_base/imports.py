"""Actions that follow the import of a certain module: now, if it is imported already, and after each import or reload.

Called by: weald.monkey, to patch modules that are not imported yet, and copies that a program imports afresh
(`importlib.reload`, a test that takes a module out of `sys.modules`); weald.compat; weald.aio.
"""

import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_Action = Callable[[ModuleType], object]
_actions: dict[str, list[_Action]] = {}


def whenever_imported(name: str, action: _Action) -> None:
    """Call `action(module)` after every later import of module `name`; now, too, if it is there."""
    if not _actions:
        sys.meta_path.insert(0, _Finder())
    _actions.setdefault(name, []).append(action)
    module = sys.modules.get(name)
    if module is not None:
        action(module)


class _Finder(MetaPathFinder):
    """Finds modules through the other finders.

    Tools' import hooks (wrapt's, ddtrace's) do that, too, and so ask this one again: a loader within a loader of the
    same kind would call the actions twice.
    """

    def __init__(self) -> None:
        self._looking: set[tuple[int, str]] = set()  # native thread, name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        search = (get_ident(), name)
        if name not in _actions or search in self._looking:
            return None
        self._looking.add(search)
        try:
            for finder in sys.meta_path:
                if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader)
                    return spec
        finally:
            self._looking.discard(search)
        return None


class _Loader(Loader):
    """Loads with another loader, which it sets as the module's loader, then calls the actions."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        for action in _actions[spec.name]:
            action(module)
