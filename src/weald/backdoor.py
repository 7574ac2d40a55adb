"""The module `weald.compat.backdoor` by its other name, for whoever lists modules or reads types.

Called by: users.
"""

import sys

from weald.compat import backdoor
from weald.compat.backdoor import *  # noqa: F403  (for those who read types)

if __name__ == "__main__":
    backdoor.main()
else:
    sys.modules[__name__] = backdoor
