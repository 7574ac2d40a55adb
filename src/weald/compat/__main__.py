"""`python -m weald.compat --check PACKAGE_OR_DIR`: which names of gevent and eventlet a code base uses, and whether
weald has them.

Called by: people who move a program from gevent or eventlet.

It reads the source, it does not run it: `from gevent.x import y`, `import gevent.x`, and attributes of what such
imports bind.  The exit status is 1 if there are names that weald does not have.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# Names of eventlet, and what to write instead.
EVENTLET = {
    "GreenPile": "weald.pool.Group and its imap",
    "GreenPool": "weald.pool.Pool",
    "Event": "weald.event.AsyncResult (send is set, wait is get)",
    "Queue": "weald.queue.Queue",
    "StopServe": "weald.server.StreamServer.stop",
    "Timeout": "weald.Timeout",
    "connect": "weald.socket.create_connection",
    "convoy": "weald.pool.Group",
    "corolocal.local": "weald.local.local",
    "debug": "weald.config; a hub that runs dry reports who waits for what",
    "debug.hub_blocking_detection": "weald.config.monitor_thread = True",
    "event": "weald.event",
    "event.Event": "weald.event.AsyncResult (send is set, wait is get)",
    "getcurrent": "weald.getcurrent",
    "green": "weald.socket, weald.ssl, weald.subprocess, …",
    "greenio": "weald.socket and weald.fileobject",
    "greenpool": "weald.pool",
    "greenpool.GreenPile": "weald.pool.Group and its imap",
    "greenpool.GreenPool": "weald.pool.Pool",
    "greenthread": "weald and weald.greenlet",
    "greenthread.GreenThread": "weald.Greenlet",
    "greenthread.getcurrent": "weald.getcurrent",
    "greenthread.kill": "weald.greenlet.kill",
    "greenthread.sleep": "weald.sleep",
    "greenthread.spawn": "weald.spawn",
    "greenthread.spawn_after": "weald.spawn_later",
    "greenthread.spawn_n": "weald.spawn_raw",
    "hubs": "weald.get_hub",
    "hubs.get_hub": "weald.get_hub",
    "hubs.trampoline": "weald.socket.wait_read and wait_write",
    "import_patched": "weald.monkey.patch_all(), once",
    "kill": "weald.greenlet.kill",
    "listen": "weald.server.StreamServer.get_listener",
    "monkey_patch": "weald.monkey.patch_all",
    "patcher": "weald.monkey",
    "patcher.is_monkey_patched": "weald.monkey.is_module_patched",
    "patcher.monkey_patch": "weald.monkey.patch_all",
    "patcher.original": "weald.monkey.get_original",
    "pools": "weald.queue.Queue filled with the resources",
    "pools.Pool": "weald.queue.Queue filled with the resources",
    "queue": "weald.queue",
    "semaphore": "weald.lock",
    "semaphore.Semaphore": "weald.lock.Semaphore",
    "serve": "weald.server.StreamServer(...).serve_forever()",
    "sleep": "weald.sleep",
    "spawn": "weald.spawn",
    "spawn_after": "weald.spawn_later",
    "spawn_n": "weald.spawn_raw",
    "timeout": "weald.timeout",
    "timeout.Timeout": "weald.Timeout",
    "tpool": "weald.threadpool",
    "tpool.Proxy": "weald.threadpool.Proxy",
    "tpool.execute": "weald.threadpool.default().apply",
    "with_timeout": "weald.with_timeout",
    "websocket.WebSocketWSGI": "weald.http.websocket",
    "wrap_ssl": "ssl.SSLContext.wrap_socket",
    "wsgi": "weald.pywsgi",
    "wsgi.server": "weald.pywsgi.WSGIServer(...).serve_forever()",
}


class Use(NamedTuple):
    """One place where a name is used: "gevent.pool.Pool" in line `line` of `path`."""

    name: str
    path: Path
    line: int


def uses(source: str, path: Path) -> Iterator[Use]:
    """Names of gevent and eventlet in `source`.  SyntaxError if it is not Python."""
    bound: dict[str, str] = {}  # local name to what it stands for
    tree = ast.parse(source, str(path))
    inner = set()  # attributes that are part of a longer chain
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _wanted(alias.name):
                    top = alias.name.partition(".")[0]
                    bound[alias.asname or top] = alias.name if alias.asname else top
                    yield Use(alias.name, path, node.lineno)
        elif isinstance(node, ast.ImportFrom) and not node.level and _wanted(node.module or ""):
            for alias in node.names:
                name = node.module if alias.name == "*" else f"{node.module}.{alias.name}"
                bound[alias.asname or alias.name] = name or ""
                yield Use(name or "", path, node.lineno)
    for node in ast.walk(tree):
        # Names that are assigned to are the program's own: tracers set marks on gevent's modules.
        if isinstance(node, ast.Attribute) and node not in inner and isinstance(node.ctx, ast.Load):
            chain: list[str] = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                inner.add(at.value)
                chain.insert(0, at.attr)
                at = at.value
            if isinstance(at, ast.Name) and at.id in bound:
                yield Use(".".join([bound[at.id], *chain]), path, node.lineno)


def _wanted(module: str) -> bool:
    return module.partition(".")[0] in ("gevent", "eventlet")


def answer(name: str) -> tuple[bool, str]:
    """Whether weald serves `name`, and where it has it or what to use instead."""
    package, _, rest = name.partition(".")
    if package == "eventlet" and not rest:
        return True, "weald"
    if package == "eventlet":
        found = next((EVENTLET[key] for key in _prefixes(rest) if key in EVENTLET), None)
        return found is not None, found or "not known to weald"
    thing: object = import_module("weald")
    at = "weald"
    if rest.partition(".")[0] in ("__version__", "version_info"):
        return True, name  # the module `gevent` has them, which weald makes
    for part in rest.split(".") if rest else ():
        try:
            thing = getattr(thing, part)
        except AttributeError as error:
            try:
                thing = import_module(f"{at}.{part}")
            except ImportError:
                # Attributes of instances cannot be looked up in the source: only modules and classes tell.
                known = isinstance(thing, type(sys)) or isinstance(thing, type)
                return not known, str(error) if known else at
        at = f"{at}.{part}"
    return True, at


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        yield ".".join(parts[:length])


def sources(where: str) -> list[Path]:
    """The Python files of a directory, a file, or a package that can be imported.  SystemExit if there is none."""
    path = Path(where)
    if not path.exists():
        try:
            spec = find_spec(where)
        except ModuleNotFoundError:  # of the package that a dot in it seems to name
            spec = None
        if spec is None or spec.origin is None:
            sys.exit(f"{where}: neither a file, nor a directory, nor a package that can be imported")
        path = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def check(where: str) -> int:
    """Print what is used, and where weald has it; how many names it does not have."""
    found: dict[str, list[Use]] = {}
    for path in sources(where):
        try:
            for use in uses(path.read_text(encoding="utf-8", errors="replace"), path):
                found.setdefault(use.name, []).append(use)
        except SyntaxError as error:
            print(f"skipped  {path}: {error}", file=sys.stderr)
    missing = 0
    for name in sorted(found):
        there, home = answer(name)
        missing += not there
        first = found[name][0]
        where = f"{len(found[name])} uses; {first.path}:{first.line}"
        print(f"{'has' if there else 'LACKS':8} {name:40} {home}   ({where})")
    print(f"{len(found)} names, {missing} of which weald does not have")
    return missing


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m weald.compat", description=__doc__)
    parser.add_argument("--check", required=True, metavar="PACKAGE_OR_DIR", help="a package, a directory or a file")
    sys.exit(1 if check(parser.parse_args().check) else 0)


if __name__ == "__main__":
    main()
