"""asyncio in patched programs: greenlets that are threads have running loops of their own, in Python and in C; the
choice of asyncio's loop.

Each case is a patched interpreter of its own.
"""

import sys

import pytest
from helpers import python

IMPORTS = "import asyncio, threading, weald\n"


@pytest.fixture(params=["weald", "asyncio"])
def patched(request):
    """How a program begins: patched, with weald's loops or asyncio's own."""
    return f"import weald.monkey; weald.monkey.patch_all(asyncio={request.param == 'weald'})\n{IMPORTS}"


def test_each_thread_has_its_running_loop(patched):
    python(
        patched
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


def test_loops_that_wait_in_turn_keep_what_is_theirs(patched):
    python(
        patched
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


def test_a_loop_in_a_callback_of_another_ends_and_gives_way_to_it(patched):
    python(
        patched
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


def test_a_second_loop_in_one_greenlet_is_refused(patched):
    python(
        patched
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


def test_a_child_of_a_fork_has_none_of_its_parents(patched):
    out = python(
        patched
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


# ------------------------------------------------------------------ whose loop

WHOSE = """
def whose(loop):
    module = type(loop).__module__
    loop.close()
    return module.split(".")[0]

async def main():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]

def all_of_them():
    with asyncio.Runner() as runner:
        found = {whose(asyncio.new_event_loop()), asyncio.run(main()), runner.run(main())}
    if hasattr(asyncio, "EventLoop"):
        found.add(whose(asyncio.EventLoop()))
        found.add(asyncio.run(main(), loop_factory=asyncio.EventLoop))
    return found
"""


@pytest.mark.parametrize("before", ["", "import asyncio", "import weald.aio"])
@pytest.mark.parametrize("after", ["import asyncio", "import weald.aio, asyncio"])
def test_patched_asyncio_takes_wealds_loop(before, after):
    out = python(
        f"""
{before}
import weald.monkey
weald.monkey.patch_all()
{after}
{WHOSE}
assert whose(asyncio.SelectorEventLoop()) == "asyncio"
print(all_of_them())
"""
    )
    assert out == "{'weald'}\n"


def test_unless_it_shall_not():
    out = python(f"import weald.monkey; weald.monkey.patch_all(asyncio=False); import asyncio, weald.aio\n{WHOSE}\n"
                 "print(all_of_them())")
    assert out == "{'asyncio'}\n"


def test_it_alone_can_be_patched():
    out = python(f"import weald.monkey; weald.monkey.patch_asyncio(); import asyncio\n{WHOSE}\nprint(all_of_them())")
    assert out == "{'weald'}\n"


def test_patching_imports_no_asyncio():
    python("import sys, weald.monkey; weald.monkey.patch_all(); assert 'asyncio' not in sys.modules")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="policies are deprecated")
def test_a_policy_of_the_programs_own_counts_for_more():
    out = python(
        f"""
        import weald.monkey
        weald.monkey.patch_all()
        import asyncio
        class Policy(asyncio.DefaultEventLoopPolicy):
            _loop_factory = asyncio.SelectorEventLoop
        asyncio.set_event_loop_policy(Policy())
        {WHOSE.replace(chr(10), chr(10) + " " * 8)}
        print(asyncio.run(main()), whose(asyncio.new_event_loop()))
        """
    )
    assert out == "asyncio asyncio\n"


@pytest.mark.parametrize("other", ["asyncio.SelectorEventLoop", "uvloop.new_event_loop", "asyncio.new_event_loop"])
def test_another_loop_in_a_native_thread_beside(other):
    """Each goes on while the other waits, and each reaches the other."""
    if other.startswith("uvloop"):
        pytest.importorskip("uvloop")
    out = python(
        f"""
        import weald.monkey
        weald.monkey.patch_all()
        import asyncio, time, {"uvloop" if other.startswith("uvloop") else "asyncio"}
        from weald.threadpool import ThreadPool

        async def echo(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        async def serve(mine, started, over):
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            loop = asyncio.get_running_loop()
            end = asyncio.Event()
            mine.call_soon_threadsafe(started.set_result, (loop, end, server.sockets[0].getsockname()))
            async with server:
                await end.wait()
            mine.call_soon_threadsafe(over.set_result, "over")

        async def main():
            mine = asyncio.get_running_loop()
            started, over = mine.create_future(), mine.create_future()
            def run():
                with asyncio.Runner(loop_factory={other}) as runner:
                    runner.run(serve(mine, started, over))
            pool = ThreadPool(1)
            done = pool.spawn(run)
            loop, end, address = await started
            assert loop is not mine
            async def ask(text):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(text)
                answer = await reader.read()
                writer.close()
                return answer
            answers = await asyncio.gather(*[ask(b"%d\\n" % i) for i in range(10)])
            assert answers == [b"%d\\n" % i for i in range(10)]
            loop.call_soon_threadsafe(end.set)
            assert await over == "over"
            await done
            return type(mine).__module__

        print(asyncio.run(main()))
        """
    )
    assert out == "weald.aio.loop\n"


def test_a_loop_in_each_thread_that_is_a_greenlet():
    """All three are at the barrier at the same time, between two awaits of a coroutine."""
    out = python(
        """
        import weald.monkey
        weald.monkey.patch_all()
        import asyncio, threading
        barrier = threading.Barrier(3)
        async def main(name):
            await asyncio.sleep(0.001)
            barrier.wait()
            await asyncio.sleep(0.001)
            found.append((name, type(asyncio.get_running_loop()).__module__))
        found = []
        threads = [threading.Thread(target=lambda name=name: asyncio.run(main(name))) for name in "abc"]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sorted(name for name, _ in found), {module for _, module in found})
        """
    )
    assert out == "['a', 'b', 'c'] {'weald.aio.loop'}\n"


NAMES = "get_running_loop _get_running_loop get_event_loop current_task"


def test_what_a_class_holds_is_no_method_of_it():
    """As asyncio's own functions, which are in C: in a class made before patching and in one made after."""
    out = python(
        f"""
        import asyncio, builtins, types
        names = [name for name in {NAMES!r}.split() if not isinstance(getattr(asyncio, name), types.FunctionType)]
        assert "get_running_loop" in names
        Before = type("Before", (), {{name: getattr(asyncio, name) for name in names}})
        class Client:
            def connect(self, loop=asyncio.get_running_loop, task=asyncio.current_task):
                return loop(), task()
        import weald.monkey
        weald.monkey.patch_all()
        After = type("After", (), {{name: getattr(asyncio, name) for name in names}})
        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            for holder in (Before(), After()):
                for name in names:
                    assert getattr(holder, name)() is (task if name == "current_task" else loop), name
            assert Client().connect() == (loop, task)
            return "right"
        print(asyncio.run(main()))
        try:
            After().get_running_loop()
        except RuntimeError as error:
            print(error)
        """
    )
    assert out == "right\nno running event loop\n"


def test_functions_kept_from_before_patching_know_each_greenlets_loop():
    """In a list, where patching leaves them."""
    python(
        f"""
        import asyncio, threading
        kept = [(name, getattr(asyncio, name)) for name in {NAMES!r}.split()]
        import weald.monkey
        weald.monkey.patch_all()
        barrier = threading.Barrier(3)
        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            for _ in range(3):
                barrier.wait()
                await asyncio.sleep(0.001)
                for name, function in kept:
                    assert function() is (task if name == "current_task" else loop), name
            done.append(1)
        done = []
        threads = [threading.Thread(target=asyncio.run, args=[main()]) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(done) == 3
        """
    )
