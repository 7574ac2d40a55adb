"""gevent.resolver_ares: it is in compat/resolver_ares.py."""

import sys

from weald.compat import resolver_ares
from weald.compat.resolver_ares import *  # noqa: F403

sys.modules[__name__] = resolver_ares
