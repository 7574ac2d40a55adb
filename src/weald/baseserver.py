"""gevent.baseserver: it is in compat/baseserver.py."""

import sys

from weald.compat import baseserver
from weald.compat.baseserver import *  # noqa: F403

sys.modules[__name__] = baseserver
