"""gevent.backdoor: it is in compat/backdoor.py."""

import sys

from weald.compat import backdoor
from weald.compat.backdoor import *  # noqa: F403

sys.modules[__name__] = backdoor
