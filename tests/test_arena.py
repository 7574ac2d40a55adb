"""Frame stacks: a small first chunk each, large ones behind it from a cache."""

import gc
import os
import sys

import psutil
import pytest
from helpers import python, settle

import weald
from weald._core import arena
from weald.event import Event


def resident():
    gc.collect()
    return int(psutil.Process(os.getpid()).memory_info().rss)


def descend(depth, event, trail):
    """`depth` frames of various sizes down, waiting on the way."""
    a, b, c, d = range(4)
    trail.append(depth)
    if depth % 7 == 0:
        weald.sleep(0)
    if depth:
        total = descend(depth - 1, event, trail) if depth % 2 else sum(descend(depth - 1, event, trail) for _ in "1")
    else:
        total = event.wait() - 1
    assert (a, b, c, d) == (0, 1, 2, 3)
    return total + depth


@pytest.mark.parametrize("depth", [*range(12), 60, 200])
def test_stacks_of_every_depth(depth):
    event, trails = Event(), [[] for _ in range(5)]
    greenlets = [weald.spawn(descend, depth, event, trail) for trail in trails]
    settle()
    event.set()
    assert [g.get() for g in greenlets] == [depth * (depth + 1) // 2] * 5
    assert trails == [list(range(depth, -1, -1))] * 5


def test_frames_outlive_their_greenlet():
    def fail(depth):
        here = depth
        return fail(depth - 1) if depth else here / 0

    greenlets = [weald.spawn(fail, depth) for depth in (0, 3, 30)]
    weald.get_hub().handle_error = lambda *args: None
    try:
        weald.joinall(greenlets)
    finally:
        del weald.get_hub().handle_error
    for greenlet, depth in zip(greenlets, (0, 3, 30), strict=True):
        seen, entry = [], greenlet.exc_info[2]
        while entry:
            if entry.tb_frame.f_code is fail.__code__:
                seen.append(entry.tb_frame.f_locals["here"])
            entry = entry.tb_next
        assert seen == list(range(depth, -1, -1))


def test_a_parked_greenlet_is_small():
    weald.killall([weald.spawn(weald.sleep, 10_000) for _ in range(3000)])
    before = resident()
    greenlets = [weald.spawn(weald.sleep, 10_000) for _ in range(3000)]
    weald.sleep(0)
    each = (resident() - before) / len(greenlets)
    weald.killall(greenlets)
    assert each < 5500, f"{each:.0f} bytes"


def kept_after_cycles():
    """Bytes that the process has grown by, and cached chunks, after twenty rounds of parking and killing."""

    def cycle(depth):
        event = Event()
        greenlets = [weald.spawn(descend, depth, event, []) for _ in range(300)]
        weald.sleep(0)
        for _ in range(depth // 7 + 1):
            weald.sleep(0)
        weald.killall(greenlets)

    before = 0
    for rounds in (3, 20):  # the first ones fill the allocator
        before = resident()
        for _ in range(rounds):
            for depth in (3, 40):
                cycle(depth)
    return resident() - before, arena.cached_chunks()


def test_chunks_are_given_back():
    # In a process of its own: one that has run other tests grows for other reasons.
    code = f"import sys; sys.path[:] = {sys.path!r}; import test_arena; print(*test_arena.kept_after_cycles())"
    growth, cached = map(int, python(code).split())
    assert growth < 10_000_000  # without the chunks' return it is 5 MB a round; the allocator's own is up to 4 MB
    assert cached <= 2048
