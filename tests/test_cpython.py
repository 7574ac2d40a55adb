"""The interpreters that weald starts on, and whether the internals that it relies on exist."""

import sys
from functools import reduce
from importlib import import_module
from pathlib import Path

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


@pytest.mark.parametrize("internal", _cpython.INTERNALS, ids=lambda internal: internal.name)
def test_what_weald_relies_on_is_there(internal):
    assert _cpython.OLDEST <= internal.first <= internal.last <= _cpython.NEWEST
    assert (SOURCE / internal.used_by).exists()
    module, colon, name = internal.name.partition(":")
    if not colon or not internal.first <= HERE <= internal.last:
        return  # of C: what compiles is there
    reduce(getattr, name.split("."), import_module(module))
