"""`--reload`: which of the files of an application have changed.  Called by: worker.py.

Looks at the times of the files a few times a second: that works on every file system, containers' mounts included, and
costs a developer's machine nothing that one would notice.
"""

import os
import site
import sys
import sysconfig
from contextlib import suppress

__all__ = ["Watch"]


class Watch:
    """The files of the modules that are loaded, but for the standard library's and installed packages'."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        paths = sysconfig.get_paths()
        installed = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
        self._installed = tuple(path.rstrip("/") + "/" for path in installed)

    def changed(self) -> str | None:
        """The path of a file that has changed since the last call, or None."""
        found = None
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if not isinstance(path, str) or path.startswith(self._installed):
                continue
            with suppress(OSError):  # an editor may be replacing it
                now = os.stat(path).st_mtime_ns
                if self._times.setdefault(path, now) != now:
                    self._times[path] = now
                    found = path
        return found
