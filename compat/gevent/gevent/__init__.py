"""The name `gevent`, served by weald: importing it installs the alias and gives way to it."""

import sys

import weald

__weald__ = True  # tells install_as_gevent that this is not the real gevent

weald.install_as_gevent()
sys.modules.pop(__name__, None)
import gevent  # noqa: E402, F401  (found by the alias now)
