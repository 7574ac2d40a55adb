"""The structure of `src/weald`: imports, mentions of gevent, and whether the names in headers and docs exist.

Everything is read from the source; nothing of weald is imported.

An import counts wherever it stands: at the top of a file, in a function, under TYPE_CHECKING, a `cimport`, and
`import_module` of a literal name.  `from weald import socket` is an import of `weald.socket`, not of `weald`.

A header's "Called by: …", up to the end of the sentence, is compared with the imports:
- Each module or file that it names imports this module, or the package that gathers its names (`weald._core`), or
  imports by names that it computes.  A package stands for all modules in it.
- Each module that imports this one is named, or lies in a package that is named, unless the header says "every".
"""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from runpy import run_path
from shutil import copy, which

import pytest

ROOT = Path(__file__).resolve().parent.parent / "src"
SUFFIXES = (".py", ".pyx", ".pxd")

DOOR = "weald"  # weald/__init__.py: `install_as_gevent`
ALSO_SAYS_GEVENT = {  # Celery has a pool of that name
    "weald.integrations.celery_command",
    "weald.integrations.celery.alias_pool",
}


def module_of(path):
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources():
    """Every module of weald, and its files: a .pyx and its .pxd are one module."""
    found = {}
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            found.setdefault(module_of(path), []).append(path)
    return found


def python_imports(text, package):
    """Dotted names that a .py file imports; "a.b" for `from a import b`, which may be a module or not."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


CYTHON_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?c?import[ \t]+(\([^)]*\)|[^\n#]+)", re.MULTILINE)


def cython_imports(text):
    """The same for a .pyx or .pxd file, by its lines."""
    found = set()
    for base, names in CYTHON_IMPORT.findall(text):
        for name in names.strip("()").split(","):
            word = name.split()[0] if name.split() else ""
            if word:
                found.add(f"{base}.{word}" if base else word)
    return found


def computes_imports(module):
    """Whether it imports modules by computed names, which cannot be found in the source."""
    texts = [path.read_text(encoding="utf-8") for path in sources()[module]]
    return any(re.search(r"import_module\((?!['\"])", text) for text in texts)


@cache
def imports():
    """The import graph: each module of weald, and the modules of weald it imports."""
    graph = {}
    for module, paths in sources().items():
        package = module if any(path.stem == "__init__" for path in paths) else module.rpartition(".")[0]
        named = set()
        for path in paths:
            text = path.read_text(encoding="utf-8")
            named |= python_imports(text, package) if path.suffix == ".py" else cython_imports(text)
        targets = set()
        for name in named:
            while name and name not in sources():
                name = name.rpartition(".")[0]
            if name and name != module:
                targets.add(name)
        graph[module] = targets
    return graph


def circles(graph):
    """One circle of each set of modules that import each other, as a path that ends where it began."""
    reached = {}  # from each module: what it reaches, and through which module
    for start in graph:
        through = reached[start] = {}
        todo = [start]
        while todo:
            module = todo.pop()
            for target in sorted(graph[module]):
                if target not in through:
                    through[target] = module
                    todo.append(target)
    found, seen = [], set()
    for start in sorted(graph):
        if start in reached[start] and start not in seen:
            seen |= {module for module in reached[start] if start in reached[module]}
            found.append(shortest_circle(graph, start))
    return found


def shortest_circle(graph, start):
    """A shortest way from `start` back to it."""
    ways = [[start]]
    while ways:
        way = ways.pop(0)
        for target in sorted(graph[way[-1]]):
            if target == start:
                return [*way, start]
            if target not in way:
                ways.append([*way, target])
    raise AssertionError(start)


def test_no_circle_of_imports():
    graph = imports()
    assert len(graph) > 80 and "weald._core.hub" in graph["weald._core.waiters"] | graph["weald._core"]
    found = circles(graph)
    assert not found, "modules import each other:\n" + "\n".join(" -> ".join(circle) for circle in found)


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["a", "b", "c", "a"]]
    assert python_imports("def f():\n    from weald import socket\n", "weald") == {"weald.socket"}
    assert python_imports("from . import x\nimport_module('weald.y')", "weald.http") == {"weald.http.x", "weald.y"}
    assert cython_imports("from weald.a cimport (B,\n  C)\nimport os\n") == {"weald.a.B", "weald.a.C", "os"}


def says_gevent(module):
    stubs = [path.with_suffix(".pyi") for path in sources()[module]]
    files = {path for path in [*sources()[module], *stubs] if path.exists()}
    return any("gevent" in path.read_text(encoding="utf-8").lower() for path in files)


def test_only_compat_and_the_one_door_know_of_gevent():
    speaking = {name for name in sources() if name.split(".")[1:2] != ["compat"] and says_gevent(name)}
    assert speaking - {DOOR, *ALSO_SAYS_GEVENT} == set()


def test_weald_itself_speaks_of_gevent_at_its_door_only():
    text = (ROOT / "weald" / "__init__.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "gevent" in line.lower().replace("install_as_gevent", "")]
    assert lines == []


# -------------------------------------------------------------------- headers


def header(module):
    """The header's text after "Called by:", up to the end of that sentence; empty without one."""
    for path in sources()[module]:
        if path.suffix != ".pxd":
            text = path.read_text(encoding="utf-8")
            found = re.match(r'(?:#[^\n]*\n)*"""(.*?)"""', text, re.DOTALL)
            doc = " ".join(found.group(1).split()) if found else ""
            said = re.search(r"Called by: (.*?)(?:\.(?= +[A-Z`\d])|\.$|$)", doc)
            return said.group(1) if said else ""
    return ""


def named_callers(module, said):
    """Modules that a header names: `weald.x.y`, or the name of a file, of the same folder first.

    Files outside of src (tests/conftest.py) are ignored.
    """
    found = set()
    for word in re.findall(r"(?<![\w./])weald(?:\.\w+)*(?:/\w+)*(?:\.py)?", said):
        name = word.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        while name not in sources():
            name = name.rpartition(".")[0]
        found.add(name)
    package = module.rpartition(".")[0]
    for word in re.findall(r"(?<![\w.])((?:\w+/)*\w+)\.pyx?\b", said):
        name = word.replace("/", ".")
        if name.startswith("weald.") or any((ROOT.parent / f"{word}{suffix}").exists() for suffix in SUFFIXES):
            continue
        candidates = [f"{package}.{name}", f"{module}.{name}", f"weald.{name}"]
        ends = [other for other in sources() if other.endswith("." + name)]
        found.add(next((c for c in [*candidates, *ends] if c in sources()), f"no such file: {word}"))
    return found


def is_importer(caller, module):
    """Whether `caller` imports `module`, or the package that gathers its names.  A package stands for its modules."""
    callers = [name for name in imports() if name == caller or name.startswith(caller + ".")]
    package = module.rpartition(".")[0]
    gathered = package if module in imports().get(package, ()) else module

    def imports_it(name):
        return any(target in (module, gathered) or target.startswith(module + ".") for target in imports()[name])

    return any(imports_it(name) or computes_imports(name) for name in callers if name != module)


def unnamed_importers(module, said):
    """Modules that import `module` though its header names neither them nor a package they lie in."""
    if re.search(r"\b(everybody|every)\b", said):
        return set()
    named = named_callers(module, said)
    words = set(re.findall(r"\w+", said))
    return {
        importer
        for importer, targets in imports().items()
        if module in targets
        and not module.startswith(importer + ".")  # a package's __init__, which gathers it
        and not any(importer == name or (name != "weald" and importer.startswith(name + ".")) for name in named)
        and importer.rpartition(".")[2] not in words
    }


def wrong_headers():
    """The errors in the headers, by module."""
    found = {}
    for module in sources():
        said = header(module)
        if said:
            named = named_callers(module, said)
            wrong = [f"{name} does not import it" for name in named if not is_importer(name, module)]
            wrong += [f"{name} is not named" for name in unnamed_importers(module, said)]
            if wrong:
                found[module] = sorted(wrong)
    return found


def test_headers_name_their_callers():
    lines = [f"{module}: {', '.join(said)}" for module, said in wrong_headers().items()]
    assert not lines, "headers ('Called by: …') that the imports contradict:\n" + "\n".join(lines)


def test_every_module_names_its_callers():
    # A .pxd without a .pyx declares C names, or functions that its users inline.
    modules = [module for module, paths in sources().items() if paths[-1].suffix != ".pxd"]
    assert {module for module in modules if not header(module)} == set()


@pytest.mark.parametrize("said, named", [("users, hub.pyx (polls), weald.http", {"weald._core.hub", "weald.http"})])
def test_headers_are_understood(said, named):
    assert named_callers("weald._core.loop", said) == named


# -------------------------------------------------------------------- sizes

LONG_FILE, LONG_FUNCTION = 600, 60  # lines; more needs a reason: "Long because …" in the header
CYTHON_FUNCTION = re.compile(r"^( *)(?:def|cdef|cpdef) (?!class )[^\n(=]*\(", re.MULTILINE)


def functions(path, text):
    """The functions of a file: first line, and how many lines.  Cython's are told by their indentation."""
    if path.suffix == ".py":
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in nodes]
    found = []
    lines = text.splitlines()
    for match in CYTHON_FUNCTION.finditer(text):
        first = text.count("\n", 0, match.start())
        last = first
        for at in range(first + 1, len(lines)):
            if lines[at].strip() and not lines[at].startswith((match[1] + " ", match[1] + ")")):
                break
            last = at if lines[at].strip() else last
        found.append((lines[first].strip(), last - first + 1))
    return found


def test_what_is_long_says_why():
    long = []
    for paths in sources().values():
        for path in paths:
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(ROOT)
            if "Long because" in text:
                continue
            if text.count("\n") > LONG_FILE:
                long.append(f"{name}: {text.count(chr(10))} lines")
            long += [f"{name}: {what} has {n} lines" for what, n in functions(path, text) if n > LONG_FUNCTION]
    assert long == []


# -------------------------------------------------------------------- docstrings


def public(node):
    """Is it a function or class of a public name, and no setter or overload of one?"""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return False
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return not any(text == "overload" or text.endswith((".setter", ".deleter")) for text in decorators)


def without_docstring(module):
    """Public functions, classes and methods of a module that have no docstring; of a compiled one by its stub."""
    found = []
    for source in sources()[module][-1:]:  # of a .pxd and a .pyx the latter
        path = source if source.suffix == ".py" else source.with_suffix(".pyi")
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        if path.stem == "__init__" and path.with_suffix(".pyi").exists():
            tree.body += ast.parse(path.with_suffix(".pyi").read_text(encoding="utf-8")).body
        for node in filter(public, tree.body):
            inner = list(filter(public, node.body)) if isinstance(node, ast.ClassDef) else []
            found += [node.name] if not ast.get_docstring(node) else []
            found += [f"{node.name}.{method.name}" for method in inner if not ast.get_docstring(method)]
    return found


def test_public_names_have_docstrings():
    assert {module: names for module in sources() if (names := without_docstring(module))} == {}


# -------------------------------------------------------------------- tests


def annotated(path):
    """The functions in a file that have annotations."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            arguments = [given.vararg, given.kwarg, *given.posonlyargs, *given.args, *given.kwonlyargs]
            if node.returns or any(argument and argument.annotation for argument in arguments):
                yield f"{path.name}:{node.lineno} {node.name}"


def test_no_test_is_annotated():
    """mypy does not check tests, so annotations there could be wrong."""
    assert [found for path in sorted(Path(__file__).parent.rglob("*.py")) for found in annotated(path)] == []


# A difference of clocks that must be small.  CPU time (`thread_time`) is allowed.
SHORT = re.compile(r"assert .*\b(monotonic|perf_counter|time)\(\) - [^<>]*<")


def test_no_test_says_how_long_something_may_take():
    """A slow machine takes longer; see CONTRIBUTING.md."""
    example = "assert time.monotonic() - began < 5"
    assert SHORT.match(example)
    found = []
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{path.name}:{number}" for number, line in enumerate(lines, 1) if SHORT.match(line.strip())]
    assert found == []


# -------------------------------------------------------------------- docs

TOP = ROOT.parent
PAGES = [*sorted((TOP / "docs").glob("*.md")), TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "benchmarks/README.md"]
FOLDERS = [  # where the pages' paths begin
    TOP / name
    for name in (".", "src", "src/weald", "src/weald/_core", "src/weald/integrations", "docs", "tests", "benchmarks")
]
OTHERS = {"build", "dist", "weald.toml", "weald.x", "PyThreadState_SetAsyncExc"}  # names that are not in the checkout
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
OURS = ("src", "tests", "scripts", "benchmarks", "docs", "examples")
ENDINGS = ("py", "pyx", "pxd", "md", "svg", "expected", "constraints")


@cache
def files_of(folder):
    """The names of all files below `folder`, and the words in those that are source."""
    paths = [path for path in (TOP / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.suffix in (*SUFFIXES, ".pyi")]
    return {path.name for path in paths}, {word for text in texts for word in re.findall(r"\w+", text)}


def has(path, names):
    """Whether there is a file or folder `path`, maybe with a suffix added, in which all of `names` occur."""
    found = [path] if path.exists() else [path.with_name(path.name + end) for end in (*SUFFIXES, ".pyi")]
    found = [one for one in found if one.exists()] or list(path.parent.glob(path.name.replace("NAME", "*")))
    texts = [one.read_text(encoding="utf-8") for one in found if names and one.is_file()]
    return bool(found) and all(any(re.search(rf"\b{name}\b", text) for text in texts) for name in names)


def is_there(name):
    """Whether the name in a page exists: a path, maybe followed by names in that file (`_core/select.poll_fds`)."""
    parts = name.rstrip("/").split("/")
    for folder in FOLDERS:
        last = parts[-1].split(".")
        for count in range(len(last), 0, -1):
            if has(folder.joinpath(*parts[:-1], ".".join(last[:count])), last[count:]):
                return True
    return False


def is_known(name):
    """Whether the dotted name is a module, a name in a module, or a key of a request's environment."""
    module = name
    while module not in sources():
        module = module.rpartition(".")[0]
    names = name[len(module) + 1 :].split(".")[:1] if name != module else []
    files = [path for one in sources()[module] for path in (one, one.with_suffix(".pyi")) if path.exists()]
    texts = [path.read_text(encoding="utf-8") for path in files]
    return all(any(re.search(rf"\b{one}\b", text) for text in texts) for one in names) or any(
        f'"{name}"' in path.read_text(encoding="utf-8") for paths in sources().values() for path in paths
    )


def missing_names(page, text):
    """Names between backticks in `text` that look like a file of this project or a name of weald, but do not exist."""
    words = {word for folder in OURS for word in files_of(folder)[1]} if page == "design.md" else set()
    for span in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
        name = re.split(r"[ (=]", span)[0]
        if name in OTHERS or name.partition("/")[0] in OTHERS:
            continue
        if re.fullmatch(r"weald(\.\w+)+", name):
            there = is_known(name)
        elif re.fullmatch(r"[\w.*-]+(/[\w.*-]+)+/?", name):
            begins = name.partition("/")[0]
            there = is_there(name) if any((folder / begins).is_dir() for folder in FOLDERS) else True
        elif re.fullmatch(rf"[\w*]+\.({'|'.join(ENDINGS)})", name):
            there = "*" in name or any(name in files_of(folder)[0] for folder in OURS)
        else:
            there = not words or not re.fullmatch(r"[A-Za-z_][\w.]*", name) or name.rpartition(".")[2] in words
        if not there:
            yield span


def test_docs_name_what_is_there():
    found = [(page.name, name) for page in PAGES for name in missing_names(page.name, page.read_text(encoding="utf-8"))]
    assert found == []


def test_the_list_of_rooms_names_what_is_there():
    """In a row of the list, names without a folder are in the folder of the row's first name."""
    rows = re.findall(r"^\| (`.*?) \|", (TOP / "docs/design.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = []
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        folder = names[0].rpartition("/")[0]
        listed += [name if "/" in name or not folder else f"{folder}/{name}" for name in names]
    assert len(listed) > 100
    assert [name for name in listed if not is_there(name)] == []


def test_what_docs_name_and_is_not_there_is_found():
    wrong = ["weald.nothing", "_core/nothing", "_core/select.nothing", "nothing.pyx", "tests/test_no_*.py"]
    wrong.append("un" + "said")  # in two parts, so that this file does not say it
    right = ["weald.spawn(f)", "_core/select.poll_fds", "hub.pyx", "tests/test_NAME.py", "application/json", "x.y/z"]
    text = " ".join(f"`{name}`" for name in wrong + right)
    assert list(missing_names("design.md", text)) == wrong


# -------------------------------------------------------------------- building


@pytest.mark.parametrize(
    "says, expected",
    [
        # version, Debian's or not, venv or not, headers
        ("3.11 1 0 /nowhere", r".*run as root: apt-get update && apt-get install .* python3\.11-dev python3\.11-venv"),
        ("3.13 0 1 /nowhere", r"\S+ lacks its headers \(/nowhere/Python\.h\) .*"),
        ("", r"weald needs Python 3\.11 or later; \S+ is Python 3\.10\.1"),
    ],
)
def test_bootstrap_says_what_is_missing(tmp_path, says, expected):
    """Python, apt-get and sudo are stand-ins, so nothing is installed."""
    (tmp_path / "scripts").mkdir()
    copy(TOP / "scripts/bootstrap", tmp_path / "scripts")
    for name, does in {
        "apt-get": "exit 1",
        "sudo": 'shift; exec "$@"',
        "some-python": f'[ "$1" != --version ] || {{ echo Python 3.10.1; exit 0; }}; echo "{says}"; [ -n "{says}" ]',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": str(tmp_path / "some-python")}
    done = subprocess.run([tmp_path / "scripts/bootstrap"], env=environ, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(expected + "\n", done.stderr), done.stderr
    assert not list(tmp_path.glob(".venv*"))


def test_package_indexes_get_no_links_to_files():
    text = run_path(str(TOP / "setup.py"))["readme"]()
    assert not re.search(r"\]\((?!https?://)", text)
    assert "[greenlet](https://" in text and "(docs/http.md)" in text and "changes (CHANGELOG.md)" in text


@pytest.mark.skipif(not (TOP / ".git").exists() or not which("git"), reason="not a clone")
def test_the_source_distribution_has_all_that_git_has():
    command = ["git", "-c", f"safe.directory={TOP}", "ls-files"]
    ours = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout.splitlines()
    taken = {"README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.py"}  # setuptools does by itself
    for line in (TOP / "MANIFEST.in").read_text().splitlines():
        words = line.split()
        if words and words[0] in ("graft", "include"):
            taken |= set(words[1:])
    assert sorted({name.partition("/")[0] for name in ours} - taken) == []


@pytest.mark.skipif(not (which("make") and which("git")), reason="needs make and git")
def test_make_clean_removes_all_that_git_ignores(tmp_path):
    for name in ("Makefile", ".gitignore"):
        copy(ROOT.parent / name, tmp_path)
    ignored = [line.strip() for line in (tmp_path / ".gitignore").read_text().splitlines() if line.strip()]
    for pattern in ignored:
        name = pattern.replace(".venv*", ".venv-3.12").replace("*", "x")  # another .venv is none of the scripts'
        path = tmp_path / ("src/weald" if pattern.startswith(("*", "__")) else "") / name
        if pattern.endswith("egg-info/"):
            path = tmp_path / "src" / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pattern.endswith("/"):
            path.mkdir()
            path /= "file"
        path.touch()

    def left():
        command = ["git", "status", "--porcelain", "--ignored=matching"]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert left().count("!!") == len(ignored)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert "!!" not in left()
