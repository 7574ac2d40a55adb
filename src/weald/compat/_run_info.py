"""gevent.util's report of a process: its threads and greenlets, with their stacks.

Called by: util.py, _tracer.py.

The tree of greenlets follows `spawning_greenlet`, not the parent, because the parent of nearly every greenlet is the
hub.
"""

import pprint
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from greenlet import getcurrent, greenlet

from weald._base.originals import get_original
from weald._core import living, track_spawns
from weald.local import all_local_dicts_for_greenlet

__all__ = ["GreenletTree", "dump_stacks", "format_run_info", "print_run_info"]

# For "Spawned at".  It costs a little at each spawn, so only programs that use gevent's util or name have it.
track_spawns(stacks=True)

_DEFAULT: Any = object()


def print_run_info(
    thread_stacks: bool = True, greenlet_stacks: bool = True, limit: Any = _DEFAULT, file: Any = None
) -> None:
    """Print `format_run_info` to `file`, sys.stderr by default."""
    for line in format_run_info(thread_stacks, greenlet_stacks, limit):
        print(line, file=sys.stderr if file is None else file)


def format_run_info(
    thread_stacks: bool = True,
    greenlet_stacks: bool = True,
    limit: Any = _DEFAULT,
    current_thread_ident: int | None = None,
) -> list[str]:
    """Lines about every thread and greenlet of the process, with their stacks, `limit` frames each."""
    if current_thread_ident is None:
        current_thread_ident = get_original("_thread", "get_ident")()
    limit = None if limit is _DEFAULT else limit
    lines = ["*" * 80, "* Threads"]
    for line in _thread_lines(thread_stacks, limit, current_thread_ident):
        lines.append(line)
    lines += ["*" * 80, "* Greenlets", "*" * 80]
    for tree in sorted(GreenletTree.forest(), key=lambda t: "" if t.is_current_tree else repr(t.greenlet)):
        lines.append("---- Thread boundary")
        # The frames of other threads' greenlets cannot be told from here.
        stacks = greenlet_stacks if tree.is_current_tree else False
        lines += tree.format_lines({"running_stacks": stacks, "running_stack_limit": limit})
    return lines


dump_stacks = format_run_info


def _thread_lines(stacks: bool, limit: int | None, current: int) -> Iterator[str]:
    threads = {thread.ident: thread for thread in threading.enumerate()}
    for ident, frame in get_original("sys", "_current_frames")().items():
        thread = threads.get(ident)
        name = None if thread is None else thread.name
        if ident == current:
            name = f"{name}) (CURRENT"
        yield "*" * 80
        yield f"Thread {ident:#x} ({name})\n"
        yield "".join(traceback.format_stack(frame, limit)) if stacks else "\t...stack elided..."


# -------------------------------------------------------------------- the tree


class GreenletTree:
    """A greenlet and those it spawned.  `str()` is short, `format()` has the details.

    Attributes are those of the greenlet.
    """

    DEFAULT_DETAILS = {"running_stacks": True, "running_stack_limit": None, "spawning_stacks": True, "locals": True}

    is_current_tree = False
    greenlet: Any = None

    def __init__(self, greenlet: Any) -> None:
        self.greenlet = greenlet
        self.child_trees: list[GreenletTree] = []

    def add_child(self, tree: "GreenletTree") -> None:
        """Add the tree of a greenlet that this one has spawned."""
        if tree is not self:
            self.child_trees.append(tree)

    @property
    def root(self) -> bool:
        """Whether the greenlet has no parent."""
        return self.greenlet.parent is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.greenlet, name)

    def __str__(self) -> str:
        return self.format(False)

    def format(self, details: Any = True) -> str:
        """`format_lines`, joined."""
        return "\n".join(self.format_lines(details))

    def format_lines(self, details: Any = True) -> list[str]:
        """The tree in lines.  `details`: whether to tell more, or a dict with the keys of DEFAULT_DETAILS."""
        if isinstance(details, dict):
            details = {**self.DEFAULT_DETAILS, **details}
        elif details:
            details = self.DEFAULT_DETAILS
        return [text for text, _ in self._lines(details or dict())]  # noqa: C408

    def _lines(self, details: dict[str, Any], mark: str = ":") -> list[tuple[str, bool]]:
        """(line, whether it tells about a greenlet), of this one and of those below."""
        lines = [(self._label(), False)]
        if details:
            for text in self._data(details):
                lines += [(f" {mark}    {line}", True) for line in text.splitlines()]
        children = sorted(self.child_trees, key=_rank)
        for child in children:
            last = child is children[-1]
            (head, _), *rest = child._lines(details, " ")
            lines.append((f" +--- {head}", False))
            for line, is_data in rest:
                if is_data:
                    lines.append((f" {' ' if last else ':'}    {line}", True))
                else:
                    lines.append((f" {' ' if last else '|'}   {line}", False))
        return lines

    def _label(self) -> str:
        glet = self.greenlet
        label = repr(glet)
        if glet:
            return label
        if not getattr(glet, "ready", _never)():
            return label + "; not running"
        label += "; finished"
        if glet.value is not None:
            return label + " with value " + repr(glet.value)[:30]
        if getattr(glet, "exception", None) is not None:
            return label + " with exception " + repr(glet.exception)
        return label

    def _data(self, details: dict[str, Any]) -> Iterator[str]:
        glet = self.greenlet
        yield f"Parent: {glet.parent!r}"
        monitor = getattr(glet, "gevent_monitoring_thread", None)
        if monitor is not None:
            yield f"Monitoring Thread:{monitor()!r}"
        if glet and details["running_stacks"]:
            yield "Running:"
            yield "".join(traceback.format_stack(glet.gr_frame, details["running_stack_limit"]))
        spawned_at = getattr(glet, "spawning_stack", None)
        if spawned_at and details["spawning_stacks"]:
            yield "Spawned at:"
            yield "".join(traceback.format_stack(spawned_at))
        tree_locals = getattr(glet, "spawn_tree_locals", None)
        if tree_locals and tree_locals is not getattr(_spawner(glet), "spawn_tree_locals", None):
            yield "Spawn Tree Locals"
            yield pprint.pformat(tree_locals)
        if details["locals"]:
            yield from self._locals()

    def _locals(self) -> Iterator[str]:
        found = all_local_dicts_for_greenlet(self.greenlet)
        if any(values for _, values in found):
            yield "Greenlet Locals:"
        for (kind, address), values in found:
            if not values:
                continue
            yield f"  Local {kind} at {address:#x}"
            yield "\n".join(f"    {line}" for line in pprint.pformat(values).splitlines())

    @classmethod
    def forest(cls) -> list["GreenletTree"]:
        """One tree for each thread that has greenlets."""
        return list(cls._forest()[0].values())

    @classmethod
    def current_tree(cls) -> "GreenletTree":
        """The tree of this thread."""
        return cls._forest()[1]

    @classmethod
    def _forest(cls) -> tuple[dict[Any, "GreenletTree"], "GreenletTree"]:
        trees: dict[Any, GreenletTree] = {}

        def tree(glet: Any) -> GreenletTree:
            if glet not in trees:
                trees[glet] = cls(glet)
            return trees[glet]

        main = _root(getcurrent())
        current = tree(main)
        current.is_current_tree = True
        roots = {main: current}
        for glet in living(greenlet):
            if getattr(glet, "greenlet_tree_is_ignored", False):
                continue
            root = _root(glet)
            spawner = _spawner(glet)
            if spawner is None:  # gone, or not known
                spawner = root
            roots.setdefault(root, tree(root))
            if glet is not root:
                tree(spawner).add_child(tree(glet))
        return roots, current


def _never() -> bool:
    return False


def _rank(tree: GreenletTree) -> tuple[Any, ...]:
    """Plain greenlets and hubs first, then in the order in which they were numbered."""
    glet = tree.greenlet
    return (getattr(glet, "minimal_ident", -1), getattr(glet, "ready", _never)(), id(glet.parent))


def _spawner(glet: Any) -> Any:
    reference = getattr(glet, "spawning_greenlet", None)
    return None if reference is None else reference()


def _root(glet: Any) -> Any:
    while glet.parent is not None and not getattr(glet, "greenlet_tree_is_root", False):
        glet = glet.parent
    return glet
