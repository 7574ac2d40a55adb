"""`python -m weald.monkey --doctor SCRIPT`: reports what a program imports before it patches, where, and the effect.

Called by: weald.monkey.__main__.

The script runs unchanged and patches when it does.  Imports are recorded until then.  Right after `patch_all`, or at
the end if the script patches piece by piece, a search through the interpreter's objects finds those that still hold
originals.  Objects that existed before the script began are left out.
"""

import _thread
import ast
import gc
import selectors  # noqa: F401  (patching imports it, so the report must not blame the script for it)
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import findsource, getsourcefile
from itertools import groupby
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any, TextIO

from weald import monkey
from weald.monkey import _names

_LOCKS = (type(_thread.allocate_lock()), type(threading.RLock()))

# Objects of these original classes cannot be replaced where a function's variable or a tuple holds them.
_STAY = {
    "queue.SimpleQueue": "blocks all greenlets while it waits",
    "select.epoll": "blocks all greenlets while it waits",
    "_thread._local": "is one for all greenlets of a thread",
}


class Doctor(MetaPathFinder, monkey.Listener):
    """Watches one program; `report` prints what it has found."""

    def __init__(self) -> None:
        self.imports: dict[str, str] = {}  # module: the lines that imported it, while nothing was patched
        self.patched_by = ""
        self.findings: list[tuple[str, str]] = []
        self.mended: list[tuple[str, str, str]] = []
        self.modules = set(sys.modules) - {"__main__"}
        self.objects: set[int] = set()  # those of the program, by id, when it began to patch
        self.targets = {"_threading_local": ["local"]}  # what was patched, and which of its names
        gc.freeze()  # hides what is there already
        sys.meta_path.insert(0, self)
        monkey.listeners.append(self)

    # -- while the program runs

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Record the lines that import `name`; find nothing."""
        if not monkey.is_anything_patched():
            self.imports.setdefault(name, _lines())
        return None

    def will_patch_module(self, source: Any, target: ModuleType, items: list[str]) -> bool:
        """Record what is patched, and the line that started it."""
        self.targets.setdefault(target.__name__, []).extend(items)
        if not self.patched_by:
            self.patched_by = _lines()
            self.objects = {id(found) for found in gc.get_objects()}
            gc.unfreeze()
        return True

    def did_patch_all(self, arguments: dict[str, Any], extra: dict[str, Any]) -> None:
        """Search for what was mended and what was not."""
        self.examine()

    # -- what came of it

    def examine(self) -> None:
        """Look for what was mended, and for what was not."""
        originals = {
            id(value): (f"{name}.{attr}", value)
            for name, items in reversed(self.targets.items())
            for attr, value in monkey.saved.get(name, {}).items()
            if callable(value) and attr in items
        }
        for name, items in monkey.saved.items():
            if name in sys.modules and name not in self.targets and name not in self.modules:
                for attr, value in items.items():
                    found = originals.get(id(value), ("?", None))[0]
                    self.mended.append((f"{name}.{attr}", found, self.place(name, attr)))
        for where, value in monkey._mended:
            module = where.removeprefix("a default of ")
            if not any(module.startswith(known + ".") for known in self.modules):
                self.mended.append((where, originals.get(id(value), ("?", None))[0], ""))
        self.findings = [*self.derived_classes(originals), *self.references(originals), *self.left_behind(originals)]

    def place(self, module: str, attr: str) -> str:
        """The line that imports `attr` into `module`, and those that imported the module."""
        line = _import_line(sys.modules.get(module), attr)
        by = self.imports.get(module)
        return ", ".join(part for part in (line, f"imported by {by}" if by else "") if part)

    def derived_classes(self, originals: dict[int, tuple[str, Any]]) -> Iterator[tuple[str, str]]:
        """Classes derived from an original class in C, which keep it as their base.  Others have been replaced."""
        for name, value in originals.values():
            written_in_c = value in _LOCKS or (name in _STAY and name != "_thread._local")
            subclasses: list[type] = value.__subclasses__() if written_in_c else []
            for derived in subclasses:
                if id(derived) in self.objects and self.is_programs(derived) and id(derived) not in originals:
                    what = f"class {derived.__module__}.{derived.__qualname__}{_line_of(derived)}"
                    yield what, f"is derived from the original {name}"

    def references(self, originals: dict[int, tuple[str, Any]]) -> Iterator[tuple[str, str]]:
        """Everything else in the program that refers to an original."""
        values = [value for _, value in originals.values()]
        ours = (id(monkey.saved), id(monkey._mended), id(originals), id(values))
        for holder in gc.get_referrers(*values):
            if id(holder) in ours or isinstance(holder, FrameType | tuple) or id(type(holder)) in originals:
                continue
            owners = gc.get_referrers(holder) if isinstance(holder, dict | CellType) else [holder]
            for described in {self.describe(owner) for owner in owners if id(owner) in self.objects} - {""}:
                for referent in gc.get_referents(holder):
                    if id(referent) in originals:
                        yield described, f"holds the original {originals[id(referent)][0]}"

    def describe(self, owner: Any) -> str:
        """A text that names the holder of an original (itself, its attributes or closure); "" if not the program's."""
        if isinstance(owner, list | set):
            for names in gc.get_referrers(owner):
                if isinstance(names, dict) and "__spec__" in names and names.get("__name__") not in self.modules:
                    attr = next((attr for attr, value in names.items() if value is owner), "")
                    return f"the {type(owner).__name__} {names['__name__']}.{attr}"
            return ""
        if isinstance(owner, tuple):  # of a closure's cells
            functions = [found for found in gc.get_referrers(owner) if isinstance(found, FunctionType)]
            for function in functions:
                if self.is_programs(function):
                    return f"the closure of {function.__module__}.{function.__qualname__}(){_line_of(function)}"
            return ""
        kind = type(owner)
        if kind.__name__ == "cython_function_or_method":
            return ""  # it has its module's names
        if isinstance(owner, type | ModuleType | FunctionType | dict) or kind.__module__ in ("builtins", "types"):
            return ""
        return f"an object of class {kind.__module__}.{kind.__qualname__}" if self.is_programs(kind) else ""

    def is_programs(self, found: Any) -> bool:
        """Whether a class or function was defined by the program or what it imported."""
        return _names.is_foreign(found.__module__) and found.__module__ not in self.targets

    def left_behind(self, originals: dict[int, tuple[str, Any]]) -> Iterator[tuple[str, str]]:
        """The program's objects that stay native: locks, queues, epolls, threads, data of threads."""
        classes = {id(value): name for name, value in originals.values() if name in _STAY}
        for found in gc.get_objects():
            if id(found) not in self.objects:
                continue
            if type(found) in _LOCKS:
                held = "held" if not found.acquire(False) else found.release() or "free"
                holders = [self.describe_lock(holder) for holder in gc.get_referrers(found)]
                where = next(filter(None, holders), "")
                if where:
                    yield where, f"is a native {type(found).__name__} ({held}): waiting for it blocks all greenlets"
            elif id(type(found)) in classes:
                name = classes[id(type(found))]
                yield f"a {name} made before", _STAY[name]
        main = threading.main_thread().ident
        for ident, thread in list(threading._active.items()):  # type: ignore[attr-defined]
            if ident != main and thread.native_id != threading.get_native_id():
                yield f"thread {thread.name!r}", "was started before and goes on natively"

    def describe_lock(self, holder: Any) -> str:
        """The name of a lock that `holder` has, if that is a module or an object of the program's."""
        if not isinstance(holder, dict) or "__spec__" not in holder:
            return ""
        name = holder.get("__name__", "")
        names = [attr for attr, value in holder.items() if type(value) in _LOCKS]
        return f"{name}.{names[0]}" if names and name not in self.modules else ""

    # -- telling

    def report(self, out: TextIO) -> None:
        """Print what was found."""
        sys.meta_path.remove(self)
        monkey.listeners.remove(self)
        gc.unfreeze()
        if not monkey.is_anything_patched():
            print("weald doctor: the program patches nothing", file=out)
            return
        if not self.mended and not self.findings:
            self.examine()
        print(f"weald doctor: patched by {self.patched_by}", file=out)
        early = {
            name: by
            for name, by in self.imports.items()
            if _names.is_foreign(name) and "." not in name
            if name in self.targets or name not in sys.stdlib_module_names
        }
        for title, lines in (
            ("imported before that", [f"{name}: {by}" for name, by in early.items() if name in sys.modules]),
            ("mended", [f"{where} ({what}){': ' + by if by else ''}" for where, what, by in self.mended]),
            ("could not be mended", [f"{what} {why}" for what, why in self.findings]),
        ):
            print(f"\n{title}:" if lines else f"\n{title}: nothing", file=out)
            for line, same in groupby(sorted(lines)):
                count = len(list(same))
                print(f"  {line}{f' ({count} times)' if count > 1 else ''}", file=out)


def _lines() -> str:
    """FILE:LINE that is being run, and the program's own line that led there, if it is another."""
    frame: FrameType | None = sys._getframe(1)
    lines: list[str] = []
    while frame is not None:
        file = frame.f_code.co_filename
        if "importlib" not in file and not file.startswith(_HERE) and not file.startswith("<frozen"):
            if frame.f_globals.get("__name__") == "runpy":
                break
            lines.append(f"{file}:{frame.f_lineno}")
        frame = frame.f_back
    if not lines:
        return "?"
    return lines[0] if lines[0] == lines[-1] else f"{lines[0]} (from {lines[-1]})"


_HERE = __file__.rpartition("monkey")[0]


def _line_of(found: Any) -> str:
    """Where a class or function is defined, in brackets."""
    try:
        return f" ({getsourcefile(found)}:{findsource(found)[1] + 1})"
    except (OSError, TypeError):
        return ""


def _import_line(module: ModuleType | None, attr: str) -> str:
    """FILE:LINE of the statement in `module` that imports `attr`."""
    try:
        file = getsourcefile(module) if module is not None else None
        if file is None:
            return ""
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, TypeError, SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if any((alias.asname or alias.name) in (attr, "*") for alias in node.names):
                return f"{file}:{node.lineno}"
    return ""
