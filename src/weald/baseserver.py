"""The module `weald.compat.baseserver` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import baseserver
from weald.compat.baseserver import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = baseserver
