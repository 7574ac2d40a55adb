"""The module `weald.compat.util` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import util
from weald.compat.util import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = util
