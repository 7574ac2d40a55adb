"""The module `weald.compat.core` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import core
from weald.compat.core import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = core
