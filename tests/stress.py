"""Stress: threads, hubs, forks and random kills against the primitives, for as long as asked.

`scripts/stress [--seconds N] [CASE...]` runs it by hand; test_stress.py runs each case for a short while.
Each case raises AssertionError when something was lost, and returns a line of what it did.
"""

import argparse
import logging
import os
import random
import sys
import threading
import time

from helpers import PATIENCE

import weald
from weald.event import Event
from weald.lock import BoundedSemaphore, RLock, Semaphore
from weald.queue import Channel, Empty, Full, JoinableQueue, Queue
from weald.threading import Condition, Lock


class Progress:
    """Counts operations of all threads; knows the longest wait of any single one."""

    def __init__(self):
        self.operations = 0
        self.longest = 0.0
        self.beats = {}

    def beat(self, who, begun):
        now = time.monotonic()
        self.operations += 1
        self.longest = max(self.longest, now - begun)
        self.beats[who] = now

    def __str__(self):
        return f"{self.operations:,} operations, longest wait {self.longest:.3f} s"


def _run_threads(workers, progress, seconds):
    """Run each in a native thread; a worker that never ends is a lost wake-up."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in workers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds + PATIENCE
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.1))
        assert not thread.is_alive(), f"somebody waits for ever: {progress}"
    if errors:
        raise errors[0]


def threads_and_hubs(seconds, greenlets=1000, plain=8, hubs=2):
    """Plain threads and hubs with many greenlets each hammer one Lock, Condition, Queue and logger."""
    progress = Progress()
    end = time.monotonic() + seconds
    everybody = greenlets * hubs + plain
    lock, shared = Lock(), [0, 0]
    condition, turn = Condition(), [0]
    queue = Queue(50)
    sums = {"put": 0, "got": 0}
    logger = logging.getLogger("weald.stress")
    logger.propagate = False
    lines = []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    handler = Handler()
    handler.lock = RLock()  # type: ignore[assignment]
    logger.handlers[:] = [handler]

    def hammer(who, number):
        rng = random.Random(repr(who))
        # If somebody never had a turn, the others would go on for good, however slow the machine is.
        while time.monotonic() < end or len(progress.beats) < everybody:
            begun = time.monotonic()
            choice = rng.randrange(4)
            if choice == 0:
                with lock:
                    before = shared[0]
                    if rng.random() < 0.2:
                        weald.sleep(0)
                    shared[0] = before + 1
                shared[1] += 1  # guarded by the GIL alone; checked to be at least roughly there
            elif choice == 1:
                with condition:
                    turn[0] += 1
                    condition.notify(1 + number % 3)
                    condition.wait(0.001 if rng.random() < 0.5 else 0.01)
            elif choice == 2:
                try:
                    if number % 2:
                        queue.put(number, timeout=0.01)
                        with lock:
                            sums["put"] += number
                    else:
                        got = queue.get(timeout=0.01)
                        with lock:
                            sums["got"] += got
                except (Empty, Full):
                    pass
            else:
                logger.warning("%s", number)
            progress.beat(who, begun)

    def hub():
        weald.joinall(
            [weald.spawn(hammer, (threading.get_ident(), n), n) for n in range(greenlets)], raise_error=True
        )

    workers = [hub] * hubs
    workers += [lambda n=n: hammer(("plain", n), n) for n in range(plain)]  # type: ignore[misc]
    _run_threads(workers, progress, seconds)
    while queue.qsize():
        sums["got"] += queue.get_nowait()
    assert sums["put"] == sums["got"], sums
    assert shared[0] <= shared[1] + 1 and not lock.locked()
    assert len(progress.beats) == everybody
    return f"{plain} threads and {hubs} hubs of {greenlets:,} greenlets: {progress}, {len(lines):,} lines logged"


def kills(seconds, greenlets=300):
    """Greenlets that use every primitive are killed and time out at random; nothing may be lost."""
    rng = random.Random(7)
    end = time.monotonic() + seconds
    semaphore, bounded = Semaphore(5), BoundedSemaphore(3)
    lock, rlock, condition = Lock(), RLock(), Condition()
    queue = JoinableQueue(10)
    channel = Channel()
    inside = {"semaphore": 0, "bounded": 0, "lock": 0, "rlock": 0}
    limits = {"semaphore": 5, "bounded": 3, "lock": 1, "rlock": 1}
    killed = done = 0

    def guarded(name, primitive):
        with primitive:
            inside[name] += 1
            assert inside[name] <= limits[name], name
            try:
                weald.sleep(0 if rng.random() < 0.7 else 0.0005)
            finally:
                inside[name] -= 1

    def work():
        nonlocal done
        while True:
            with weald.Timeout(rng.choice((0.0001, 0.001, 0.01, 1)), False):
                choice = rng.randrange(8)
                if choice == 0:
                    guarded("semaphore", semaphore)
                elif choice == 1:
                    guarded("bounded", bounded)
                elif choice == 2:
                    guarded("lock", lock)
                elif choice == 3:
                    with rlock:
                        guarded("rlock", rlock)
                elif choice == 4:
                    with condition:
                        condition.notify()
                        condition.wait(0.001)
                elif choice == 5:
                    queue.put(1)
                elif choice == 6:
                    queue.get()
                    queue.task_done()
                elif rng.random() < 0.5:
                    channel.put(1)
                else:
                    channel.get()
                done += 1

    crowd = [weald.spawn(work) for _ in range(greenlets)]
    while time.monotonic() < end:
        weald.sleep(0.002)
        for _ in range(rng.randrange(1, 20)):
            victim = rng.randrange(greenlets)
            crowd[victim].kill(block=rng.random() < 0.5)
            crowd[victim] = weald.spawn(work)
            killed += 1
    weald.killall(crowd)
    assert not any(inside.values()), inside
    assert semaphore.counter == 5 and bounded.counter == 3 and not lock.locked(), "a permit was lost"
    assert rlock.acquire(False) and condition.acquire(False), "a lock was lost"
    while queue.qsize():
        queue.get_nowait()
        queue.task_done()
    assert queue.unfinished_tasks <= greenlets + killed  # a killed taker need not have said task_done
    for primitive in (semaphore, bounded, lock, rlock):
        if primitive is not rlock:
            with weald.Timeout(PATIENCE):
                primitive.acquire()
    woken = Event()
    weald.spawn(woken.set)
    assert woken.wait(PATIENCE)
    return f"{greenlets} greenlets, {killed:,} kills, {done:,} operations"


def forks(seconds, greenlets=50, at_most=10_000):
    """Fork while greenlets, timers and threads are under way; each child runs greenlets of its own."""
    end = time.monotonic() + seconds
    stop = []
    queue = Queue(3)

    def busy(n):
        while not stop:
            if n % 3 == 0:
                weald.sleep(0.001)
            elif n % 3 == 1:
                queue.put(n)
            else:
                queue.get()

    crowd = [weald.spawn(busy, n) for n in range(greenlets)]
    helper = threading.Thread(target=lambda: [weald.sleep(0.001) for _ in iter(lambda: bool(stop), True)], daemon=True)
    helper.start()
    count = 0
    while count < at_most and time.monotonic() < end:
        pid = os.fork()
        if not pid:
            try:
                with weald.Timeout(PATIENCE):
                    results = weald.joinall([weald.spawn(lambda n=n: (weald.sleep(0.001), n)[1]) for n in range(5)])
                os._exit(0 if sorted(g.value for g in results) == list(range(5)) else 3)
            except BaseException:
                os._exit(4)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code == 0, f"child {count} ended with {code}"
        count += 1
        weald.sleep(0)
    stop.append(True)
    weald.killall(crowd)
    helper.join(PATIENCE)
    return f"{count:,} forks with {greenlets} greenlets and a second thread running"


CASES = {"threads": threads_and_hubs, "kills": kills, "forks": forks}


def main():
    parser = argparse.ArgumentParser(prog="scripts/stress", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=120, help="for each case (default: %(default)g)")
    options = parser.parse_args()
    for name in options.cases or CASES:
        print(f"{name}: {CASES[name](options.seconds)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
