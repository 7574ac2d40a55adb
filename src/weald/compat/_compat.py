"""gevent._compat: the version of Python, and names for things that once differed between versions.

Called by: users, as gevent._compat; _monitor.py.
"""

import io
import os
import sys
from abc import ABC
from os import PathLike, fsdecode, fsencode, fspath
from time import get_clock_info, monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from weald._base.names import more_names

PYPY = False
WIN = False
LINUX = sys.platform.startswith("linux")
OSX = MAC = sys.platform == "darwin"
PY311 = sys.version_info >= (3, 11)
PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
PY314 = sys.version_info >= (3, 14)
# gevent's C extensions are not here.
PURE_PYTHON = GLOBAL_PURE_PYTHON = True

string_types = (str,)
text_type = str
integer_types = (int,)
native_path_types = (str, PathLike)
hostname_types = (str, bytes, bytearray)
thread_mod_name = "_thread"
NativeStrIO = io.StringIO
xrange = range
izip = zip
iteritems = dict.items
itervalues = dict.values

__all__ = [
    "ABC",
    "LINUX",
    "MAC",
    "OSX",
    "PURE_PYTHON",
    "PYPY",
    "WIN",
    "NativeStrIO",
    "PathLike",
    "exc_clear",
    "fsdecode",
    "fsencode",
    "fspath",
    "get_clock_info",
    "get_this_psutil_process",
    "hostname_types",
    "integer_types",
    "iteritems",
    "itervalues",
    "izip",
    "monotonic",
    "native_path_types",
    "perf_counter",
    "reraise",
    "string_types",
    "text_type",
    "thread_mod_name",
    "xrange",
]


def reraise(t: type[BaseException], value: BaseException, tb: Any = None) -> None:
    """Raise `value` with the traceback `tb`."""
    raise value.with_traceback(tb)


def exc_clear() -> None:
    """Does nothing on Python 3."""


def get_this_psutil_process() -> Any:
    """psutil's object for this process, or None without psutil."""
    try:
        from psutil import Process
    except ImportError:
        return None
    return Process(os.getpid())


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._compat")
