"""The module `weald.compat.hub` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import hub
from weald.compat.hub import *  # noqa: F403  (for those who read types)

sys.modules[__name__] = hub
