"""The interpreters that weald starts on, and whether the internals that it relies on exist."""

import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from helpers import python

from weald import _cpython

SOURCE = Path(_cpython.__file__).parent
HERE = sys.version_info[:2]


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 16, 0), (4, 0, 0)])
def test_an_unknown_version_is_refused_in_a_sentence(version):
    out = python(
        f"""
        import sys
        class Version(tuple):
            major, minor = property(lambda self: self[0]), property(lambda self: self[1])
        sys.version_info = Version({(*version, "final", 0)!r})
        try:
            import weald
        except ImportError as error:
            print(error)
        print(any(name.startswith("weald._core") for name in sys.modules))
        """
    )
    sentence, loaded = out.splitlines()
    assert f"this is cpython {version[0]}.{version[1]}:" in sentence and "CPython 3.11 to 3.15" in sentence
    assert "pip install -U weald" in sentence and loaded == "False"


def test_another_implementation_is_refused():
    out = python(
        """
        import sys
        sys.implementation.name = "pypy"
        try:
            import weald
        except ImportError as error:
            print(error)
        """
    )
    assert "this is pypy" in out


def test_a_free_threaded_interpreter_is_refused():
    out = python(
        """
        import sys
        sys.abiflags = "t"
        try:
            import weald
        except ImportError as error:
            print(error)
        print(any(name.startswith("weald._core") for name in sys.modules))
        """
    )
    assert out.splitlines() == ["weald needs a CPython with its global lock: this one is free-threaded", "False"]


def test_source_that_was_not_compiled_says_so(tmp_path):
    """Also a folder of another Python's modules, or a zip file."""
    copytree(SOURCE, tmp_path / "weald", ignore=ignore_patterns("*.so", "__pycache__"))
    out = python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        try:
            import weald
        except ImportError as error:
            print(error)
        """
    )
    assert f"are not in {tmp_path}/weald/_core: pip install weald" in out and "make build" in out


@pytest.mark.parametrize("internal", _cpython.INTERNALS, ids=lambda internal: internal.name)
def test_what_weald_relies_on_is_there(internal):
    assert _cpython.OLDEST <= internal.first <= internal.last <= _cpython.NEWEST
    assert (SOURCE / internal.used_by).exists()
    module, colon, name = internal.name.partition(":")
    if not colon or not internal.first <= HERE <= internal.last:
        return  # of C: what compiles is there
    reduce(getattr, name.split("."), import_module(module))
