"""The module `weald.compat.win32util` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import win32util
from weald.compat.win32util import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = win32util
