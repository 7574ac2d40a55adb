"""gevent.util: it is in compat/util.py."""

import sys

from weald.compat import util
from weald.compat.util import *  # noqa: F403

sys.modules[__name__] = util
