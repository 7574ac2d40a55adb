"""Builds the compiled modules of `_core`, `_base`, `aio` and `http`; all other settings are in pyproject.toml.

Called by: pip and scripts/bootstrap.  One extension per .pyx.  It needs code because greenlet.h
lies in the installed greenlet package, because a missing header must stop the build with the
command that installs it, and because package indexes need another README.
"""

import os
import re
import sys
from glob import glob
from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

ROOMS = ("_base", "_core", "aio", "http")
# Backend (a module of _core/loops): the library to link, its header, Debian's package with both.
BACKENDS = {"uv": ("uv", "uv.h", "libuv1-dev"), "ev": ("ev", "ev.h", "libev-dev")}
# A backend is left out only by name: WEALD_BUILD_WITHOUT=libev
LEFT_OUT = {name.removeprefix("lib") for name in os.environ.get("WEALD_BUILD_WITHOUT", "").split(",")}
INCLUDE = ["/usr/include", "/usr/local/include", *os.environ.get("CPATH", "").split(os.pathsep)]


def extension(source: str) -> Extension:
    name = Path(source).stem
    libraries = []
    if name in BACKENDS:
        library, header, package = BACKENDS[name]
        if not any(Path(folder, header).exists() for folder in INCLUDE if folder):
            sys.exit(
                f"weald needs {header} to build: apt-get install {package}\n"
                f"(or leave this event loop out: WEALD_BUILD_WITHOUT=lib{library})"
            )
        libraries.append(library)
    return Extension(
        ".".join(Path(source).with_suffix("").parts[1:]),
        [source],
        include_dirs=[str(Path(greenlet.__file__).parent)],
        libraries=libraries,
        # The table of greenlet's functions is unused in modules that include its header only for the types.
        extra_compile_args=["-O2", "-g0", "-Wno-unused-variable"],
    )


def readme() -> str:
    """README.md for package indexes, where links to files of the source lead nowhere: the files' names instead."""
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    links = re.compile(r"\[([^]]+)\]\((?!https?:)([^)]+)\)")
    text = links.sub(lambda link: link[2] if link[1] == link[2] else f"{link[1]} ({link[2]})", text)
    return f"{text}\nThe files named here are in the source distribution.\n"


# cythonize's processes import this file again where processes are not forked (Python 3.14 and later).
if __name__ == "__main__":
    setup(
        long_description=readme(),
        long_description_content_type="text/markdown",
        ext_modules=cythonize(
            [
                extension(source)
                for room in ROOMS
                for source in sorted(glob(f"src/weald/{room}/**/*.pyx", recursive=True))
                if Path(source).stem not in LEFT_OUT
            ],
            nthreads=2,
            include_path=["src"],
            # One for each Python: otherwise Cython's own declarations, newer in another environment, would make
            # the C code look outdated.
            build_dir=f"build/cython-{sys.version_info.major}.{sys.version_info.minor}",
            compiler_directives={
                "language_level": 3,
                "annotation_typing": False,
                "initializedcheck": False,
                "cdivision": True,
                "binding": True,
            },
        )
    )
