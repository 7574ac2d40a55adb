"""gevent.core: it is in compat/core.py."""

import sys

from weald.compat import core
from weald.compat.core import *  # noqa: F403

sys.modules[__name__] = core
