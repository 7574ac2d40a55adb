"""The module `weald.compat.resolver_thread` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import resolver_thread
from weald.compat.resolver_thread import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = resolver_thread
