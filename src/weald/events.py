"""gevent.events: it is in compat/events.py."""

import sys

from weald.compat import events
from weald.compat.events import *  # noqa: F403

sys.modules[__name__] = events
