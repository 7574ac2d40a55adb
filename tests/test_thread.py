"""weald.thread: `_thread` on greenlets."""

import _thread
import sys

import pytest
from helpers import REAL, VIRTUAL, python, recorded_errors, run_patched, settle, takes, tick

import weald
from weald import thread
from weald.event import Event


def test_names():
    for name in thread.__all__:
        assert hasattr(thread, name)
    for name in thread.__implements__:
        assert hasattr(_thread, name), f"the stdlib has no {name}"


@VIRTUAL
def test_start_new_thread(loop_name):
    seen = []

    def work(*args, **kwargs):
        seen.append((args, kwargs, thread.get_ident()))

    idents = [thread.start_new_thread(work, (1, 2), {"key": 3}), thread.start_new(work, ())]
    assert seen == []
    settle()
    assert seen == [((1, 2), {"key": 3}, idents[0]), ((), {}, idents[1])]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((1, ()), "first arg must be callable"),
        ((len, []), "2nd arg must be a tuple"),
        ((len, (), 1), "optional 3rd arg must be a dictionary"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(TypeError, match=message):
        thread.start_new_thread(*args)
    with pytest.raises(TypeError, match=message):
        _thread.start_new_thread(*args)


def test_the_ways_to_leave_a_thread_are_silent():
    def system_exit():
        sys.exit(3)

    with recorded_errors() as errors:
        for leave in (thread.exit, thread.exit_thread, system_exit):
            thread.start_new_thread(leave, ())
        settle()
    assert errors == []


def test_exit_in_a_plain_greenlet_ends_only_that():
    greenlet = weald.spawn(thread.exit)
    greenlet.join()
    assert isinstance(greenlet.value, weald.GreenletExit)
    with pytest.raises(SystemExit):
        thread.exit()


def test_an_error_goes_to_the_hub_once():
    with recorded_errors() as errors:
        thread.start_new_thread(lambda: 1 / 0, ())
        settle()
    assert [error[1] for error in errors] == [ZeroDivisionError]


def test_get_ident():
    idents = weald.joinall([weald.spawn(thread.get_ident) for _ in range(3)])
    assert len({greenlet.value for greenlet in idents} | {thread.get_ident()}) == 4
    assert thread.get_ident() == thread.get_ident()


@REAL
def test_locks(loop_name):
    lock = thread.allocate_lock()
    assert isinstance(lock, thread.LockType)
    assert lock.acquire() and lock.locked()
    with takes(1):
        assert not lock.acquire(True, tick())
    waiter = weald.spawn(lock.acquire)
    settle()
    assert not waiter.ready()
    lock.release()
    assert waiter.get() is True
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()
    for args in ((False, 1), (True, -2)):
        with pytest.raises(ValueError):
            lock.acquire(*args)
        with pytest.raises(ValueError):
            _thread.allocate_lock().acquire(*args)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="handles came with Python 3.13")
def test_handles():
    go = Event()
    handle = thread.start_joinable_thread(go.wait)
    assert handle.ident is not None and not handle.is_done()
    handle.join(0.001)
    assert not handle.is_done()
    go.set()
    handle.join()
    handle.join(-1)
    assert handle.is_done()
    with pytest.raises(RuntimeError, match="already started"):
        thread.start_joinable_thread(go.wait, handle)
    with pytest.raises(TypeError, match="handle must be a _ThreadHandle"):
        thread.start_joinable_thread(go.wait, _thread._ThreadHandle())  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="not started"):
        thread._ThreadHandle().join()
    with pytest.raises(RuntimeError, match="not started"):
        thread._ThreadHandle()._set_done()
    caught = []
    itself = thread._ThreadHandle()

    def join_itself():
        try:
            itself.join()
        except RuntimeError as error:
            caught.append(str(error))

    thread.start_joinable_thread(join_itself, itself)
    itself.join()
    assert caught == ["Cannot join current thread"]
    assert handle not in thread._running and itself not in thread._awaited_at_exit


def test_raw_threads_patched():
    out = run_patched(
        """
        import _thread, time
        done = _thread.allocate_lock()
        done.acquire()
        def work(n):
            time.sleep(0.01)
            print(n, _thread.get_ident() == ident)
            done.release()
        ident = _thread.start_new_thread(work, (1,))
        done.acquire()
        """
    )
    assert out == "1 True\n"


def test_interrupt_main_reaches_the_main_greenlet():
    out = python(
        """
        import weald, weald.thread
        weald.spawn_later(0.01, weald.thread.interrupt_main)
        try:
            weald.sleep(30)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert out == "interrupted\n"


def test_count():
    go = Event()
    before = thread._count()
    running = [thread._start(go.wait, (), None) for _ in range(3)]
    assert thread._count() == before + 3
    go.set()
    weald.joinall(running)
    assert thread._count() == before


def test_a_programs_own_handler_of_what_threads_raise():
    out = run_patched(
        """
        import _thread, sys, time
        def fail():
            1 / 0
        def hook(found):
            print(found.exc_type.__name__, found.err_msg.replace(repr(fail), "").strip(), found.object in (fail, None))
        sys.unraisablehook = hook
        _thread.start_new_thread(fail, ())
        time.sleep(0.01)
        """
    )
    assert out == "ZeroDivisionError Exception ignored in thread started by True\n"
