"""The modules of weald that a program frozen by PyInstaller needs: all except the integrations.

PyInstaller reads imports from Python code.  It does not see those of compiled modules, nor modules that are named when
the program runs: in settings, by patching, by another package's name.

Called by: PyInstaller, when a program imports weald.
"""

from importlib.util import find_spec

from PyInstaller.utils.hooks import collect_submodules

# These import other projects and all their dependencies.  A program that uses one of them must name it.
excludedimports = ["weald.integrations"]
_INTEGRATIONS = ("weald.integrations", "weald._pyinstaller")

hiddenimports = ["greenlet", *collect_submodules("weald", filter=lambda name: not name.startswith(_INTEGRATIONS))]
# Imports of compiled modules.  PyInstaller finds the standard library's through other modules.
if find_spec("httptools"):
    hiddenimports += collect_submodules("httptools")
