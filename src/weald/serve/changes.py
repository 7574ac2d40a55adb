"""`--reload`: which of the files of an application have changed.  Called by: worker.py.

Looks at the times of the files a few times a second.  That works on every file system, mounts of containers included,
and costs little on a developer's machine.
"""

import os
import site
import sys
import sysconfig
import time
from contextlib import suppress

__all__ = ["Watch"]


class Watch:
    """The files of the loaded modules, without those of the standard library and of installed packages.

    Make it before the application is loaded: then a file that changes while it is loaded counts as changed, too.
    """

    def __init__(self) -> None:
        self._begin = time.time_ns()  # 0 once `changed` has been called
        self._times: dict[str, int] = {}
        paths = sysconfig.get_paths()
        installed = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
        self._installed = tuple(path.rstrip("/") + "/" for path in installed)

    def changed(self) -> str | None:
        """Return the path of a file that has changed since the last call, or None."""
        found = None
        begin, self._begin = self._begin, 0
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if not isinstance(path, str) or path.startswith(self._installed):
                continue
            with suppress(OSError):  # an editor may be replacing it
                changed_at = os.stat(path).st_mtime_ns
                # A time in the future comes from another host's clock; else such a file would count at each start.
                since_begin = bool(begin) and begin < changed_at <= time.time_ns()
                if self._times.setdefault(path, changed_at) != changed_at or since_begin:
                    self._times[path] = changed_at
                    found = path
        return found
