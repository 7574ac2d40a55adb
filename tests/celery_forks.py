"""The functions that child processes of tasks run, for celery_proj.py; spawned children import this module."""

import os
import time


def square(number):
    return number * number


def stay(*_):
    time.sleep(600)


def by_hand(wait):
    pid = os.fork()
    if pid == 0:
        if wait:
            time.sleep(600)
        raise SystemExit(9)
    return pid


def with_handler(key):
    """A child with a handler of its own, which ends it in its own way."""
    import signal
    import sys

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    key.set()
    time.sleep(600)
