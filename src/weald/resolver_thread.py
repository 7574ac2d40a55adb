"""gevent.resolver_thread: it is in compat/resolver_thread.py."""

import sys

from weald.compat import resolver_thread
from weald.compat.resolver_thread import *  # noqa: F403

sys.modules[__name__] = resolver_thread
