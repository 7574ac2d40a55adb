"""Processes of every start method, patched or not, with greenlets running in the parent."""

import subprocess
import sys

import pytest
from helpers import PATIENCE, run_patched

PROGRAM = """
import sys
if {patched}:
    import weald.monkey
    weald.monkey.patch_all()
import weald
import multiprocessing
from concurrent.futures import ProcessPoolExecutor


def square(n):
    weald.joinall([weald.spawn(weald.sleep, 0.001) for _ in range(3)])
    return n * n


def echo(inbox, outbox, lock):
    with lock:
        outbox.put(inbox.get() + 1)


def wait_for_one(gate):
    gate.acquire()


def main():
    context = multiprocessing.get_context({method!r})
    inbox, outbox, lock = context.Queue(), context.Queue(), context.Lock()
    process = context.Process(target=echo, args=(inbox, outbox, lock))
    process.start()
    inbox.put(41)
    print(outbox.get(timeout=100))
    process.join(100)
    print(process.exitcode)
    here, there = context.Pipe()
    process = context.Process(target=there.send, args=("pipe",))
    process.start()
    print(here.recv())
    process.join()
    with context.Pool(2) as pool:
        print(pool.map(square, range(5)), pool.apply_async(square, (9,)).get(100))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        print(list(executor.map(square, range(5))))
    if {patched}:
        gate = context.Semaphore(0)
        process = context.Process(target=wait_for_one, args=(gate,))
        process.start()
        weald.spawn_later(0.01, gate.release)  # nothing but the parent's loop ends the child
        process.join()


if __name__ == "__main__":
    main()
    print("end")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
def test_processes(tmp_path, method, patched):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(patched=patched, method=method))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", script], capture_output=True, text=True, timeout=PATIENCE
    )
    expected = ["42", "0", "pipe", "[0, 1, 4, 9, 16] 81", "[0, 1, 4, 9, 16]", "end"]
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (expected, "", 0)


def test_a_lock_that_another_process_holds_lets_others_run():
    out = run_patched(
        """
        import multiprocessing, os, weald
        context = multiprocessing.get_context("fork")
        lock = context.Lock()
        held, let_go = os.pipe(), os.pipe()
        def hold():
            with lock:
                os.write(held[1], b"x")
                os.read(let_go[0], 1)
        process = context.Process(target=hold)
        process.start()
        os.read(held[0], 1)
        print(lock.acquire(False), lock.acquire(timeout=0.01))
        weald.spawn_later(0.01, os.write, let_go[1], b"x")
        print(lock.acquire())
        lock.release()
        process.join()
        with context.RLock() as rlock:
            pass
        """
    )
    assert out == "False False\nTrue\n"


def test_a_recursive_lock_is_its_greenlets():
    out = run_patched(
        """
        import multiprocessing, weald
        context = multiprocessing.get_context("fork")
        lock = context.RLock()

        def other():
            try:
                lock.release()
            except AssertionError as error:
                log.append(str(error))
            log.append(lock.acquire(False))
            log.append(lock.acquire(timeout=0.01))
            with lock, lock:
                log.append("other")

        log = []
        with lock:
            with lock:
                greenlet = weald.spawn(other)
                while len(log) < 3:
                    weald.sleep(0.001)
            log.append("main")
            for _ in range(10):
                weald.sleep(0.001)
            log.append("main")
        greenlet.get(timeout=100)
        condition = context.Condition(lock)
        with condition:
            waiting = [condition.wait(0.01), lock.acquire(False)]
            lock.release()
        process = context.Process(target=lock.acquire, args=(True, 5))
        with lock:
            process.start()
        process.join()
        print(log, waiting, process.exitcode)
        """
    )
    assert out == (
        "['attempt to release recursive lock not owned by thread', False, False, 'main', 'main', 'other']"
        " [False, True] 0\n"
    )


@pytest.mark.parametrize("before", ["", "import multiprocessing.connection"])
def test_a_connection_on_a_sockets_descriptor(before):
    """As the fork server's is, from Python 3.14 on.  It waits, in both directions, while others run."""
    out = run_patched(
        """
        import socket, weald
        from multiprocessing.connection import Connection
        here, there = socket.socketpair()
        ours, theirs = (Connection(sock.fileno()) for sock in (here, there))
        got = weald.spawn(ours.recv)
        theirs.send("small")
        print(got.get())
        sent = weald.spawn(ours.send_bytes, bytes(3_000_000))
        print(theirs.recv_bytes() == bytes(3_000_000), sent.get())
        for connection in (ours, theirs):
            connection._handle = None
        """,
        before=before,
    )
    assert out.splitlines() == ["small", "True None"]


def test_a_process_started_in_a_greenlet_that_has_asked_for_its_thread():
    """As logging does: the thread object of the greenlet is the child's main thread."""
    out = run_patched(
        """
        import multiprocessing, threading, weald
        def work(queue):
            queue.put((threading.current_thread().name, threading.current_thread() is threading.main_thread()))
        def start():
            threading.current_thread()
            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(queue.get())
            process.join()
            print(process.exitcode)
        weald.spawn(start).get()
        """
    )
    assert out == "('MainThread', True)\n0\n"
