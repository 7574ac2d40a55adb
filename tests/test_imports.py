"""Imports in patched programs: greenlets and coroutines that import what another one is still importing."""

import sys

import pytest
from helpers import run_patched

GATE = """
from weald.event import Event
entered, go = Event(), Event()
times = 0
def wait():
    global times
    times += 1
    entered.set()
    go.wait()
"""

# Ways to call functions side by side: each returns objects whose `get` waits for what a function returns.
START = """
import asyncio, gc, importlib._bootstrap, sys, threading, weald, weald.aio, weald.testing, gate
from weald.aio import await_

def import_slow():
    import slow
    return slow.value

def in_greenlets(*functions):
    return [weald.spawn(function) for function in functions]

def in_coroutines_that_wait(*functions):
    return [weald.spawn(await_, waits_and_calls(function)) for function in functions]

def in_coroutines(*functions):
    return [weald.spawn(await_, calls(function)) for function in functions]

def in_tasks(*functions):
    async def main():
        return await asyncio.gather(*map(calls, functions))
    running = weald.spawn(weald.aio.run, main())
    return [weald.spawn(lambda index=index: running.get()[index]) for index in range(len(functions))]

def in_threads(*functions):
    results = [weald.event.AsyncResult() for _ in functions]
    for function, result in zip(functions, results):
        threading.Thread(target=lambda function=function, result=result: result.set(function())).start()
    return results

async def calls(function):
    return function()

async def waits_and_calls(function):
    await asyncio.sleep(0)
    return function()

def check_state():
    gc.collect()
    internals = importlib._bootstrap
    if sys.version_info < (3, 12):
        assert not internals._blocking_on
    else:
        assert not any(waits() for waits in internals._blocking_on.data.values())
    assert not [name for name, lock in internals._module_locks.items() if lock() is not None]
"""


@pytest.fixture
def importing(tmp_path):
    """Runs code in a patched program whose modules are `modules`, texts by name, besides `gate`."""

    def run(code, **modules):
        for name, text in {"gate": GATE, "slow": "import gate; gate.wait(); value = 1", **modules}.items():
            (tmp_path / f"{name}.py").write_text(text)
        return run_patched(START + code, before=f"import sys; sys.path.insert(0, {str(tmp_path)!r})")

    return run


WAYS = ["in_greenlets", "in_threads", "in_tasks", "in_coroutines", "in_coroutines_that_wait"]


@pytest.mark.parametrize("way", WAYS)
def test_others_wait_for_a_module_that_blocks(importing, way):
    """Nobody sees half of it, although coroutines of a loop share the ident of its thread."""
    out = importing(
        f"""
def import_name():
    from slow import value
    return value
jobs = {way}(import_slow, import_slow, import_name, lambda: __import__("slow").value)
weald.testing.blocked()
gate.go.set()
print([job.get() for job in jobs], gate.times)
check_state()
"""
    )
    assert out == "[1, 1, 1, 1] 1\n"


@pytest.mark.parametrize("way", WAYS)
def test_modules_that_import_each_other(importing, way):
    """As in threads, one of the two goes on with half a module where otherwise both would wait for ever."""
    out = importing(
        f"""
jobs = {way}(lambda: __import__("left"), lambda: __import__("right"))
weald.testing.blocked()
gate.go.set()
for job in jobs:
    job.get()
import left, right
print(left.value, right.value, left.right is right, right.left is left)
check_state()
""",
        left="import gate; gate.wait(); import right; value = 'left'",
        right="import gate; gate.wait(); import left; value = 'right'",
    )
    assert out == "left right True True\n"


def test_an_importer_is_killed(importing):
    """The next one imports the module afresh.

    One that waits gets the incomplete module, as in threads: before Python 3.14 none looks whether the import failed.
    """
    out = importing(
        """
def attempt():
    try:
        return import_slow()
    except AttributeError as error:
        return str(error)

first, second, third = in_greenlets(import_slow, import_slow, attempt)
weald.testing.blocked()
second.kill()
first.kill()
gate.go.set()
print(third.get())
print(import_slow(), gate.times)
del first, second, third  # their tracebacks have the module's lock
check_state()
"""
    )
    assert out.splitlines() == ["1" if sys.version_info >= (3, 14) else "module 'slow' has no attribute 'value'", "1 2"]


def test_an_importer_is_killed_as_it_finishes(importing):
    """A kill must not find it waiting halfway through the release of the module."""
    out = importing(
        """
first, second = in_greenlets(import_slow, import_slow)
weald.testing.blocked()
third = weald.spawn(import_slow)
gate.go.set()
weald.spawn(first.kill)  # right after `third` has found the module locked and `first` has ended its import
print(second.get(timeout=100), third.get(timeout=100), gate.times)
check_state()
"""
    )
    assert out == "1 1 1\n"


def test_cancelled_tasks_finish_their_imports(importing):
    out = importing(
        """
async def main():
    tasks = [asyncio.create_task(waits_and_calls(import_slow)) for _ in range(2)]
    await asyncio.to_thread(gate.entered.wait)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    weald.spawn(lambda: (weald.testing.blocked(), gate.go.set()))
    await asyncio.wait(tasks)
    print(sys.modules["slow"].value, [task.cancelled() for task in tasks], gate.times)
weald.aio.run(main())
check_state()
"""
    )
    assert out == "1 [True, True] 1\n"


def test_a_module_patches_and_then_blocks(tmp_path):
    """Its lock, which the main greenlet has held since before, is that of a patched program."""
    (tmp_path / "program.py").write_text(
        "import weald.monkey; weald.monkey.patch_all()\n"
        "import weald, weald.testing\n"
        "def job():\n"
        "    import program\n"
        "    return program.value\n"
        "jobs = [weald.spawn(job) for _ in range(3)]\n"
        "weald.testing.blocked()\n"
        "value = 1\n"
    )
    out = run_patched(
        "print([job.get() for job in program.jobs])",
        before=f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import program",
    )
    assert out == "[1, 1, 1]\n"
