"""Running loops of asyncio in greenlets that play threads: each has its own, in Python and in C.

Each case is a patched interpreter of its own.
"""

from helpers import python

PATCHED = "import weald.monkey; weald.monkey.patch_all(); import asyncio, threading, weald\n"


def test_each_thread_has_its_running_loop():
    python(
        PATCHED
        + """
def none_here():
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        return str(error) == "no running event loop" and asyncio._get_running_loop() is None

async def main():
    mine = asyncio.get_running_loop()
    found = []
    other = threading.Thread(target=lambda: found.append(none_here()))
    other.start()
    other.join()  # blocks the loop, in its own thread
    assert found == [True], found
    assert asyncio.get_running_loop() is asyncio._get_running_loop() is mine

asyncio.run(main())
assert none_here()
"""
    )


def test_loops_that_wait_in_turn_keep_what_is_theirs():
    python(
        PATCHED
        + """
def loops(number, found):
    async def main():
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        for _ in range(20):
            await asyncio.sleep(0.001)  # the loop parks, another thread's goes on
            made = asyncio.Future()  # in C, which reads the native thread's loop
            assert made.get_loop() is loop is asyncio.get_running_loop()
            assert asyncio.current_task() is task is asyncio.current_task(loop)
        found.append(number)
    asyncio.run(main())

found = []
threads = [threading.Thread(target=loops, args=(number, found)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(found) == [0, 1, 2, 3], found
"""
    )


def test_a_loop_in_a_callback_of_another_ends_and_gives_way_to_it():
    python(
        PATCHED
        + """
async def inner():
    await asyncio.sleep(0.001)
    return asyncio.get_running_loop()

def in_thread(found):
    found.append(asyncio.run(inner()))

async def main():
    mine, found = asyncio.get_running_loop(), []
    thread = threading.Thread(target=in_thread, args=(found,))
    thread.start()
    thread.join()
    assert found and found[0] is not mine and asyncio.get_running_loop() is mine
    assert asyncio.Future().get_loop() is mine

asyncio.run(main())
"""
    )


def test_a_second_loop_in_one_greenlet_is_refused():
    python(
        PATCHED
        + """
async def main():
    nested = asyncio.new_event_loop()
    coroutine = asyncio.sleep(0)
    try:
        nested.run_until_complete(coroutine)
    except RuntimeError as error:
        assert "while another loop is running" in str(error), error
    else:
        raise SystemExit("no error")
    finally:
        coroutine.close()
        nested.close()

asyncio.run(main())
"""
    )


def test_a_child_of_a_fork_has_none_of_its_parents():
    out = python(
        PATCHED
        + """
import os, warnings
warnings.simplefilter("ignore")

async def main():
    pid = os.fork()
    if not pid:
        try:
            assert asyncio._get_running_loop() is None
            os._exit(asyncio.run(asyncio.sleep(0, 7)))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(asyncio.run(main()))
"""
    )
    assert out == "7\n"


def test_it_is_the_same_where_asyncio_was_imported_before():
    python(
        """
        import asyncio, threading
        from asyncio import get_running_loop
        import weald.monkey
        weald.monkey.patch_all()
        from weald import asyncio as ours
        assert asyncio.get_running_loop is get_running_loop is ours.get_running_loop
        assert asyncio.current_task is ours.current_task

        async def main():
            assert get_running_loop() is asyncio.get_event_loop()

        asyncio.run(main())
        """
    )
