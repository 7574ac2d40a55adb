"""What a program that PyInstaller freezes needs of weald: all but the integrations.

PyInstaller reads imports from Python code.  It does not see those of compiled modules, nor modules that are named when
the program runs: in settings, by patching, by another package's name.

Called by: PyInstaller, when a program imports weald.
"""

from importlib.util import find_spec

from PyInstaller.utils.hooks import collect_submodules

# These import other projects, with all that belongs to those.  A program that uses one of them names it.
excludedimports = ["weald.integrations"]
_INTEGRATIONS = ("weald.integrations", "weald._pyinstaller")

hiddenimports = ["greenlet", *collect_submodules("weald", filter=lambda name: not name.startswith(_INTEGRATIONS))]
# What compiled modules import: the standard library's is found by others.
if find_spec("httptools"):
    hiddenimports += collect_submodules("httptools")
