"""local: one set of attributes per greenlet."""

import gc
import weakref

import pytest
from helpers import run_patched

import weald
from weald.local import local


def test_each_greenlet_has_its_own(loop_name):
    data = local()
    data.x = "main"
    assert weald.spawn(lambda: hasattr(data, "x")).get() is False
    weald.spawn(setattr, data, "x", "other").join()
    assert data.x == "main" and data.__dict__ == {"x": "main"}
    del data.x
    with pytest.raises(AttributeError, match="x"):
        del data.x


def test_init_of_a_subclass_runs_in_each(loop_name):
    class Mine(local):
        def __init__(self, start):
            self.n = start

    mine = Mine(5)
    mine.n += 1
    assert weald.spawn(lambda: mine.n).get() == 5
    assert mine.n == 6
    with pytest.raises(TypeError):
        local(1)


def test_values_die_with_their_greenlet(loop_name):
    class Thing:
        pass

    data, refs = local(), []

    def work():
        data.thing = Thing()
        refs.append(weakref.ref(data.thing))

    ended = weald.spawn(work)
    ended.join()
    assert refs[0]() is None  # though the greenlet is still there
    plain = weald.spawn_raw(work)
    weald.sleep(0)
    assert plain.dead
    del plain
    gc.collect()
    assert refs[1]() is None


def test_a_local_leaves_nothing_in_a_greenlet_that_outlives_it(loop_name):
    def work():
        me = weald.getcurrent()
        for _ in range(3):
            data = local()
            data.x = 1
            assert me.has_links()
            del data
        return me.has_links()

    g = weald.spawn(work)
    weald.sleep(0)  # not `get`, which would be a link
    assert g.value is False


def test_a_local_that_dies_last_is_silent():
    """The one in click lives until the interpreter has cleared weald's modules."""
    assert run_patched("import click.globals") == ""


def test_objects_that_die_with_the_interpreter():
    """Locals, locks and the current thread still work in their `__del__`."""
    assert run_patched("""
        import builtins
        import threading

        class Holder:
            def __init__(self):
                self.local = threading.local()
                self.local.value = 5
                self.locks = threading.Lock(), threading.RLock(), threading.Semaphore()

            def __del__(self):
                self.local.other = self.local.value + 1
                for lock in self.locks:
                    with lock:
                        print(self.local.value, self.local.other, threading.current_thread().name)

        builtins.holder = Holder()  # builtins are cleared last of all
        """) == "5 6 MainThread\n" * 3


@pytest.mark.parametrize("spawn", [weald.spawn, weald.spawn_raw])
def test_finalizers_of_values_may_wait(spawn, virtual):
    """They run when the greenlet has ended.  Others run meanwhile, and they do not see another greenlet's values."""

    class Finalized:
        def __del__(self):
            order.append("begins")
            weald.sleep(1)
            order.append("ends")

    order = []
    mine = local()
    mine.value = "main"

    def work():
        mine.value = Finalized()

    for _ in range(2):
        spawn(work)
    weald.sleep(0.5)
    assert order == ["begins", "begins"] and mine.value == "main"
    weald.sleep(1)
    assert order == ["begins", "begins", "ends", "ends"]


def test_finalizers_of_a_patched_threads_values_may_wait():
    out = run_patched(
        """
        import threading, time
        class Finalized:
            def __del__(self):
                time.sleep(0.001)
                print("finalized")
                done.set()
        local, done = threading.local(), threading.Event()
        thread = threading.Thread(target=lambda: setattr(local, "value", Finalized()))
        thread.start()
        thread.join()
        done.wait()
        """
    )
    assert out == "finalized\n"
