"""The folder with PyInstaller's hook, which lists the modules of weald that a frozen program needs.

Called by: PyInstaller, by the entry point `pyinstaller40` of the distribution.
"""

from pathlib import Path

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """Return the folders with hooks."""
    return [str(Path(__file__).parent)]
