"""The module `weald.compat.events` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import events
from weald.compat.events import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = events
