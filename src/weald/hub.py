"""gevent.hub: it is in compat/hub.py."""

import sys

from weald.compat import hub
from weald.compat.hub import *  # noqa: F403

sys.modules[__name__] = hub
