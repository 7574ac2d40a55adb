"""gevent.win32util: it is in compat/win32util.py."""

import sys

from weald.compat import win32util
from weald.compat.win32util import *  # noqa: F403

sys.modules[__name__] = win32util
