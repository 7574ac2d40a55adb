"""weald.signal: handlers run in greenlets and may block.  Each case in an interpreter of its own."""

import signal as stdlib
import subprocess
import sys
import textwrap

import pytest
from helpers import PATIENCE, USE_UP_DESCRIPTORS, python, run_patched

from weald import signal

SET_UP = """
import os, signal as stdlib, time, weald.testing
from weald import signal
log = []
def send(signum=signal.SIGUSR1):
    os.kill(os.getpid(), signum)
"""


def case(code, stderr=""):
    return python(SET_UP + textwrap.dedent(code), stderr=stderr)


def test_names():
    assert signal.SIGTERM is stdlib.SIGTERM
    for name in signal.__all__:
        assert hasattr(signal, name)


def test_a_handler_may_sleep_and_the_interrupted_goes_on():
    out = case(
        """
        def handler(signum, frame):
            log.append(("begin", signum == signal.SIGUSR1, frame is not None))
            weald.sleep(0.05)
            log.append("end")
        signal.signal(signal.SIGUSR1, handler)
        send()
        log.append("main")
        while len(log) < 3:
            weald.sleep(0.001)
        print(log)
        """
    )
    assert out == "[('begin', True, True), 'main', 'end']\n"


def test_a_handler_wakes_a_loop_that_waits():
    out = case(
        """
        from weald.event import Event
        done = Event()
        signal.signal(signal.SIGALRM, lambda signum, frame: (weald.sleep(0.01), done.set()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        print(done.wait(100))
        """
    )
    assert out == "True\n"


def test_a_handler_gets_the_frame_of_the_main_line_that_waits():
    out = run_patched(
        """
        import os, signal, threading, time
        def handler(signum, frame):
            while frame.f_code.co_name != "wait_here":
                frame = frame.f_back
            print(frame.f_locals["mine"])
        signal.signal(signal.SIGUSR1, handler)
        threading.Timer(0.001, lambda: (os.kill(os.getpid(), signal.SIGUSR1), done.set())).start()
        done = threading.Event()
        def wait_here():
            mine = 5
            done.wait()
        wait_here()
        """
    )
    assert out == "5\n"


def test_a_handler_in_a_greenlet_and_one_that_waits_for_the_interrupted():
    out = case(
        """
        from weald.lock import Semaphore
        from weald.testing import blocked
        lock = Semaphore()
        def handler(signum, frame):
            with lock:
                log.append("handler")
        signal.signal(signal.SIGUSR1, handler)
        def work():
            with lock:
                send()
                log.append("work")
        greenlet = weald.spawn(work)
        greenlet.get()
        blocked()
        print(log)
        """
    )
    assert out == "['work', 'handler']\n"


def test_many_signals():
    out = case(
        """
        def handler(signum, frame):
            weald.sleep(0.001)
            log.append(1)
        signal.signal(signal.SIGUSR1, handler)
        for _ in range(50):
            send()
            weald.sleep(0)
        while len(log) < 50:
            weald.sleep(0.001)
        print(len(log), len(weald.get_hub().parked()))
        """
    )
    assert out == "50 0\n"


def test_what_a_handler_raises_reaches_the_main_greenlet():
    out = case(
        """
        class Stop(Exception): pass
        def at_once(signum, frame):
            raise Stop("at once")
        def later(signum, frame):
            weald.sleep(0.01)
            raise Stop("later")
        for handler in (at_once, later):
            signal.signal(signal.SIGUSR1, handler)
            for come_upon in (send, lambda: weald.spawn(send).join()):
                try:
                    come_upon()
                    weald.sleep(1000)
                except Stop as error:
                    print(error)
        """
    )
    assert out.splitlines() == ["at once", "at once", "later", "later"]


def test_signal_and_getsignal_speak_of_the_users_handlers():
    out = case(
        """
        def handler(signum, frame): pass
        print(signal.signal(signal.SIGUSR1, handler) is signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) is handler)
        print(signal.signal(signal.SIGUSR1, signal.SIG_IGN) is handler)
        send()
        print(signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN)
        print(signal.getsignal(signal.SIGINT) is stdlib.default_int_handler)
        for bad in ((0, handler), (signal.SIGUSR1, "x"), (signal.SIGKILL, handler)):
            try:
                signal.signal(*bad)
            except (ValueError, TypeError, OSError) as error:
                print(type(error).__name__)
        """
    )
    assert out.splitlines() == ["True True", "True", "True", "True", "ValueError", "TypeError", "OSError"]


def test_a_handler_runs_in_the_context_of_the_main_thread():
    out = case(
        """
        import contextvars
        var = contextvars.ContextVar("var", default="none")
        signal.signal(signal.SIGUSR1, lambda signum, frame: (log.append(var.get()), var.set("handler")))
        var.set("main")
        send()
        print(log, var.get())
        """
    )
    assert out == "['main'] handler\n"


def test_patched():
    out = run_patched(
        """
        import os, signal, threading, time
        done = threading.Event()
        def handler(signum, frame):
            time.sleep(0.01)
            done.set()
        signal.signal(signal.SIGTERM, handler)
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        print(done.wait(100))
        """
    )
    assert out == "True\n"


def test_who_waits_for_a_signal_is_not_deadlocked():
    """While a handler exists, which may wake any greenlet."""
    out = run_patched(
        """
        import os, signal, subprocess, threading, weald
        def wait():
            subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -TERM {os.getpid()}"])
            print(done.wait(), flush=True)
            done.clear()
            for harmless in (signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL):
                signal.signal(signal.SIGTERM, harmless)
                try:
                    done.wait()
                except weald.LoopExit:
                    print("LoopExit", flush=True)
        done = threading.Event()
        for _ in range(2):
            signal.signal(signal.SIGTERM, lambda *args: done.set())
            signal.signal(signal.SIGUSR1, print)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        wait()
        """
    )
    assert out.split() == ["True", *["LoopExit"] * 3] * 2


def test_ctrl_c_ends_a_patched_program():
    """KeyboardInterrupt is raised in the main greenlet, whichever greenlet runs."""
    program = """
import weald.monkey; weald.monkey.patch_all()
import threading, time
def busy():
    while True:
        time.sleep(0)
threading.Thread(target=busy, daemon=True).start()
print("ready", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
    assert err.rstrip().endswith("KeyboardInterrupt") and err.count("Traceback") == 1, err
    assert child.returncode == -signal.SIGINT


def test_a_handler_that_parks_while_the_hub_is_made():
    """The first hub is made when a greenlet has to wait, and a signal may come just then."""
    out = case(
        """
        import weald.monkey; weald.monkey.patch_all()
        import time
        def handler(signum, frame):
            time.sleep(0.01)
            print("handled")
        signal.signal(signal.SIGUSR1, handler)
        class Hub(weald._core.Hub):
            def __init__(self):
                super().__init__()
                if not made:
                    made.append(self)
                    send()
        made = []
        weald._core.set_hub_class(Hub)
        other = weald.spawn(time.sleep, 0.05)
        time.sleep(0.01)
        other.join()
        print(weald.get_hub() is not made[0])
        """
    )
    assert out == "handled\nTrue\n"


def test_a_signal_just_before_the_hub_hears_of_signals_is_not_lost():
    """Tried at many moments, because no Python code runs at the critical one."""
    out = case(
        """
        import weald.monkey; weald.monkey.patch_all()
        import threading
        told = threading.Event()
        signal.signal(signal.SIGALRM, lambda *args: told.set())
        for number in range(600):
            told.clear()
            weald.get_hub().destroy()
            signal.setitimer(signal.ITIMER_REAL, 0.00001 + number % 200 * 0.000002)
            assert told.wait(100), number
        print("all")
        """
    )
    assert out == "all\n"


def test_whether_a_full_wakeup_descriptor_is_reported_stays_as_said():
    out = case(
        """
        import sys
        sys.unraisablehook = lambda report: log.append(type(report.exc_value))
        r, w = os.pipe()
        os.set_blocking(w, False)
        for size in (65536, 1):
            try:
                while True:
                    os.write(w, bytes(size))
            except BlockingIOError:
                pass
        signal.signal(signal.SIGUSR1, lambda *args: None)
        for warns in (False, True):
            stdlib.set_wakeup_fd(w, warn_on_full_buffer=warns)
            weald.sleep(0.001)  # the loop waits, with a descriptor of its own
            send()
            weald.sleep(0.001)
            log.append(warns)
        stdlib.set_wakeup_fd(-1)
        print(log)
        """,
        stderr=None,  # Python 3.11 says a part of it there
    )
    assert out == "[False, <class 'BlockingIOError'>, True]\n"


def test_only_the_main_thread_may_set_handlers():
    """Programs use that to find out whether they are in the main thread."""
    out = run_patched(
        """
        import os, signal, threading, time, weald
        weald.sleep(0)
        def work():
            for call in (
                lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
                lambda: signal.signal(signal.SIGUSR1, lambda *args: None),
                lambda: signal.set_wakeup_fd(-1),
            ):
                try:
                    call()
                except ValueError as error:
                    print(error)
            print(signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        weald.spawn(signal.signal, signal.SIGUSR1, signal.SIG_IGN).get()  # a greenlet that is no thread may
        def fork():
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
                os._exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        """
    )
    told = "signal only works in main thread of the main interpreter\n"
    assert out == told * 2 + "set_" + told.replace("signal", "wakeup_fd") + "True\n3\n"


def test_a_signal_for_a_thread():
    out = run_patched(
        """
        import signal, threading, time
        told, go = [], threading.Event()
        signal.signal(signal.SIGUSR1, lambda *args: told.append(args[0]))
        thread = threading.Thread(target=go.wait)
        thread.start()
        signal.pthread_kill(thread.ident, signal.SIGUSR1)
        signal.pthread_kill(threading.get_ident(), 0)
        while not told:
            time.sleep(0.001)
        go.set()
        thread.join()
        print(told == [signal.SIGUSR1])
        """
    )
    assert out == "True\n"


def test_signals_while_the_first_hub_is_made():
    for delay in range(12):
        out = run_patched(
            f"""
            import signal, time
            signal.signal(signal.SIGALRM, lambda *args: time.sleep(0))
            signal.setitimer(signal.ITIMER_REAL, {0.0001 + 0.0001 * delay}, 0.0002)
            time.sleep(0.01)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print("ok")
            """
        )
        assert out == "ok\n"


@pytest.mark.parametrize("loop", ["libuv", "libev"])
def test_no_descriptors_are_left_for_the_first_hub(loop):
    """OSError.  The next wait, with descriptors again, has a complete hub, which signals can wake."""
    out = run_patched(
        """
        import signal, time
        result = None
        for free in range(10):
            kept = use_up_descriptors(free)
            try:
                time.sleep(0.001)
                result = "slept"
            except OSError as error:
                assert error.errno == 24
            for fd in kept:
                os.close(fd)
            if result:
                break
        print(result)
        signal.signal(signal.SIGALRM, lambda *args: print("woken", flush=True))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.1)
        """,
        before=f"{USE_UP_DESCRIPTORS}os.environ['WEALD_LOOP'] = {loop!r}",
    )
    assert out == "slept\nwoken\n"


def test_a_handler_runs_though_no_hub_can_be_made():
    out = run_patched(
        """
        import signal
        signal.signal(signal.SIGUSR1, lambda signum, frame: print(frame.f_code.co_name, flush=True))
        def work():
            os.kill(os.getpid(), signal.SIGUSR1)
        kept = use_up_descriptors()
        work()
        for fd in kept:
            os.close(fd)
        work()
        """,
        before=USE_UP_DESCRIPTORS,
    )
    assert out == "work\nwork\n"


@pytest.mark.parametrize("waits", [False, True])
def test_a_handler_runs_as_the_main_thread(waits):
    """It is the current thread and holds its locks; context variables that it sets stay set; and it may wait."""
    out = run_patched(
        """
        import contextvars, signal, threading, time
        lock, told, variable = threading.RLock(), threading.Event(), contextvars.ContextVar("v", default=0)
        def handler(*args):
            if WAITS:
                time.sleep(0.001)
            with lock:
                with lock:
                    variable.set(variable.get() + 1)
                    local.count += 1
                    seen.append((threading.current_thread(), threading.get_ident(), lock._is_owned()))
            if WAITS:
                time.sleep(0.001)
            told.set()
        seen, local = [], threading.local()
        local.count = 0
        signal.signal(signal.SIGALRM, handler)
        for busy in False, True:
            told.clear()
            with lock:
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                while busy and not told.is_set():
                    if WAITS:
                        time.sleep(0)
                assert told.wait(100)
            with lock:
                pass
        thread = threading.Thread(target=lambda: print(lock.acquire(timeout=100)))
        thread.start()
        thread.join()
        main = threading.main_thread()
        print(seen == [(main, main.ident, True)] * 2, variable.get(), local.count, threading.enumerate() == [main])
        """.replace("WAITS", repr(waits))
    )
    assert out == "True\nTrue 2 2 True\n"


def test_a_wakeup_descriptor_is_not_told_of_signals_before_it():
    """Nor is one that was replaced again, and signals that came meanwhile are not lost."""
    out = case(
        """
        r, w = os.pipe2(os.O_NONBLOCK)
        def told():
            try:
                return list(os.read(r, 100))
            except BlockingIOError:
                return []
        signal.signal(signal.SIGUSR1, lambda *args: log.append("USR1"))
        signal.signal(signal.SIGUSR2, lambda *args: log.append("USR2"))
        weald.sleep(0)
        for _ in range(100):
            send()
        assert stdlib.set_wakeup_fd(w) == -1
        weald.testing.blocked()
        before = told()
        send(signal.SIGUSR2)
        weald.testing.blocked()
        within = told()
        assert stdlib.set_wakeup_fd(-1) == w
        send()
        weald.sleep(0.001)
        print(before, within == [signal.SIGUSR2], told(), log == ["USR1"] * 100 + ["USR2", "USR1"])
        """
    )
    assert out == "[] True [] True\n"


def test_what_a_thread_blocks_is_its_own():
    """The main thread still gets signals, and its handlers are called."""
    out = run_patched(
        """
        import signal, threading, time
        got, go = [], threading.Event()
        signal.signal(signal.SIGUSR1, lambda number, frame: got.append(threading.current_thread().name))
        def block():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
            go.wait()
            print(before, signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2]) == {10, 12})
            print(signal.pthread_sigmask(signal.SIG_SETMASK, []), signal.pthread_sigmask(signal.SIG_BLOCK, []))
            for how, mask, kind in ((99, [1], OSError), (0, [signal.NSIG], ValueError), (0, ["x"], TypeError)):
                try:
                    signal.pthread_sigmask(how, mask)
                except kind as error:
                    print(type(error).__name__)
        thread = threading.Thread(target=block)
        thread.start()
        weald.sleep(0)
        signal.raise_signal(signal.SIGUSR1)
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), got)
        go.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        inheriting = threading.Thread(target=lambda: print(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        inheriting.start()
        inheriting.join()
        """
    )
    mask = "{<Signals.SIGUSR1: 10>}"
    assert out.splitlines() == [
        "set() ['MainThread']", "set() True", mask + " set()", "OSError", "ValueError", "TypeError", mask,
    ]  # fmt: skip


def test_waiting_for_blocked_signals_lets_others_run():
    out = case(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
        for wait in (signal.sigwait, signal.sigwaitinfo, lambda signals: signal.sigtimedwait(signals, 1000)):
            waiting = weald.spawn(wait, {signal.SIGUSR1, signal.SIGUSR2})
            weald.sleep(0)
            assert not waiting.dead
            send(signal.SIGUSR2)
            found = waiting.get()
            print(found if wait is signal.sigwait else found.si_signo)
        send()
        print(repr(signal.sigwait([signal.SIGUSR1])), signal.sigtimedwait([signal.SIGUSR1], 0))
        print(signal.sigtimedwait([signal.SIGUSR1], 0.001))
        """
    )
    assert out.split("\n") == ["12", "12", "12", "<Signals.SIGUSR1: 10> None", "None", ""]


def test_a_thread_takes_the_programs_signals_while_the_main_line_works():
    out = run_patched(
        """
        import os, signal, threading
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
        got, heard = [], threading.Semaphore(0)

        def take():
            while signal.SIGTERM not in got:
                got.append(signal.sigwait([signal.SIGHUP, signal.SIGTERM]))
                heard.release()

        thread = threading.Thread(target=take)
        thread.start()
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
            heard.acquire()
        thread.join()
        print(*[int(number) for number in got])
        """
    )
    assert out == "1 1 15\n"


def test_what_cannot_be_waited_for_is_refused_as_the_stdlib_does():
    out = case(
        """
        for call in (lambda: signal.sigwait({0}), lambda: signal.sigtimedwait({signal.SIGUSR1}, -1),
                     lambda: signal.sigwait(5), lambda: signal.sigtimedwait({signal.SIGUSR1}, "x")):
            try:
                call()
            except Exception as error:
                print(type(error).__name__)
        """
    )
    assert out.split() == ["ValueError", "ValueError", "TypeError", "TypeError"]


def test_pause_ends_with_the_next_handler():
    out = case(
        """
        signal.signal(signal.SIGUSR1, lambda *_: log.append("handled"))
        send()
        weald.sleep(0)  # that one came before
        waiting = weald.spawn(signal.pause)
        weald.sleep(0)
        weald.sleep(0)
        assert not waiting.dead and log == ["handled"]
        send()
        waiting.join()
        print(log)
        signal.signal(signal.SIGUSR1, lambda *_: 1 / 0)
        weald.spawn(send)
        try:
            signal.pause()
        except ZeroDivisionError as error:
            print(error)
        """
    )
    assert out == "['handled', 'handled']\ndivision by zero\n"


def test_who_pauses_can_be_killed():
    out = case(
        """
        waiting = weald.spawn(signal.pause)
        weald.sleep(0)
        waiting.kill()
        signal.signal(signal.SIGUSR1, lambda *_: log.append("handled"))
        send()
        weald.sleep(0)
        print(log, waiting.successful())
        """
    )
    assert out == "['handled'] True\n"


def test_what_cannot_be_waited_for_is_refused_beside_others_too():
    out = case(
        """
        weald.sleep(0)  # there is a hub, so others could run
        for call in (lambda: signal.sigwait({0}), lambda: signal.sigwaitinfo({10**6}), lambda: signal.sigwait(5),
                     lambda: signal.sigtimedwait({0}, 5), lambda: signal.sigtimedwait({signal.SIGUSR1}, -1)):
            try:
                call()
            except Exception as error:
                print(type(error).__name__)
        """
    )
    assert out.split() == ["ValueError", "ValueError", "TypeError", "ValueError", "ValueError"]


def as_unpatched(code):
    """Run `code` unpatched and patched; the output, which must be the same."""
    plain = python(code)
    assert run_patched(code) == plain
    return plain


def test_each_pause_waits_for_a_handler_of_its_own():
    out = as_unpatched(
        """
        import signal
        calls = []
        signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)  # again, in case the first comes before the pause
            before = len(calls)
            signal.pause()
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(len(calls) > before)
        """
    )
    assert out == "True\nTrue\nTrue\n"


def test_what_a_handler_raises_while_it_runs_in_another():
    """The inner one's exception is raised in the outer one, as the main thread executes that."""
    out = as_unpatched(
        """
        import os, signal

        def inner(*_):
            raise KeyError("inner")

        def outer(*_):
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
                for _ in range(100):
                    pass
            except KeyError as error:
                print("outer caught", error)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):
                pass

        signal.signal(signal.SIGUSR1, inner)
        signal.signal(signal.SIGUSR2, outer)
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            for _ in range(100):
                pass
        except KeyboardInterrupt:
            print("interrupted")
        signal.signal(signal.SIGALRM, outer)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            signal.pause()
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert out == "outer caught 'inner'\ninterrupted\n" * 2


@pytest.mark.parametrize("wait", ["time.sleep(20)", "threading.Event().wait(20)", "os.read(os.pipe()[0], 1)"])
def test_what_a_handler_raises_while_another_waits(wait):
    """A deadline for what a handler does, set by another signal."""
    out = as_unpatched(
        f"""
        import os, signal, threading, time

        class Late(Exception):
            pass

        def deadline(*_):
            raise Late

        def stop(*_):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                {wait}
            except Late:
                print("late")
            finally:
                done.append(1)
            raise SystemExit(0)

        done = []
        signal.signal(signal.SIGALRM, deadline)
        signal.signal(signal.SIGTERM, stop)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            while not done:
                time.sleep(0.01)
            time.sleep(20)
        except BaseException as error:
            print(repr(error))
        """
    )
    assert out == "late\nSystemExit(0)\n"


@pytest.mark.parametrize(
    "use",
    [
        "socket.getaddrinfo('localhost', 80)",
        "socket.getfqdn('192.0.2.1')",
        "threading.Thread(target=os.wait, daemon=True).start(); time.sleep(0.05)",
    ],
)
def test_threads_of_wealds_own_take_no_signals(use):
    """A signal that the program blocks, to wait for it, would end the program in a thread that does not block it."""
    out = run_patched(
        f"""
        import os, signal, socket, subprocess, sys, threading, time
        with subprocess.Popen(["sleep", "100"]) as child:
            {use}
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
            print(signal.sigwait([signal.SIGTERM]).name)
            child.kill()
        """
    )
    assert out == "SIGTERM\n"


ENDS = {
    "the main thread ends": "os.kill(os.getpid(), signal.SIGTERM)",
    "an exception ends it": "os.kill(os.getpid(), signal.SIGTERM); sys.exit(0)",
    "it waits for a thread": "threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()",
    "a function of atexit": "atexit.register(os.kill, os.getpid(), signal.SIGTERM)",
    "a child of fork": "os.waitpid(child, 0) if (child := os.fork()) else os.kill(os.getpid(), signal.SIGTERM)",
    "a process": "(child := fork.Process(target=signal.raise_signal, args=(15,))).start(); child.join()",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_program_does_not_end_before_its_handlers(end):
    """One that waits when the program's own code is over: in an unpatched program, the main thread is in it."""
    out = run_patched(
        f"""
        import atexit, multiprocessing, os, signal, sys, threading, time
        def save(signum, frame):
            print("saving", flush=True)
            time.sleep(0.05)
            print("saved", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        fork = multiprocessing.get_context("fork")
        {end}
        """
    )
    assert out == "saving\nsaved\n"


RAISED = {
    "sys.exit(3)": 3,
    "sys.exit(259)": 3,
    "sys.exit()": 0,
    "sys.exit('words')": 1,
    "int('x')": 1,
    "raise KeyboardInterrupt": -stdlib.SIGINT,
    "pass": 7,
}


@pytest.mark.parametrize("process", ["program", "fork"])
@pytest.mark.parametrize(("raises", "status"), RAISED.items(), ids=RAISED)
def test_a_handler_that_ends_late_decides_the_exit_status(raises, status, process):
    """In an unpatched program it interrupts the main thread, which ends with what it raises."""
    script = textwrap.dedent(
        f"""
        import weald.monkey; weald.monkey.patch_all()
        import atexit, os, signal, sys, threading, time
        going = threading.Event()
        def handle(signum, frame):
            going.wait()
            print("handled", flush=True)
            {raises}
        atexit.register(print, "atexit", flush=True)
        signal.signal(signal.SIGTERM, handle)
        def main():
            signal.raise_signal(signal.SIGTERM)
            threading.Timer(0.01, going.set).start()
            sys.exit(7)
        def fork():
            if child := os.fork():
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                print("status", status, flush=True)
                os._exit(0)
            main()
        if {process == "fork"}:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        main()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    if process == "fork":
        status = 0 if raises == "pass" else status  # sys.exit ends the thread only
        assert ended.stdout.splitlines()[-1] == f"status {status}", ended
    else:
        assert (ended.stdout, ended.returncode) == ("handled\natexit\n", status), ended
    assert ("words" in ended.stderr) == ("words" in raises)
    assert ("ValueError" in ended.stderr) == ("int" in raises)
    assert "Exception ignored" not in ended.stderr


def test_the_module_may_be_imported_at_the_end():
    out = python(
        """
        import atexit, weald
        def late():
            import os, weald.signal
            weald.signal.signal(weald.signal.SIGTERM, lambda *args: print("handled"))
            os.kill(os.getpid(), weald.signal.SIGTERM)
        atexit.register(late)
        """
    )
    assert out == "handled\n"


def test_ctrl_c_ends_the_wait_for_a_handler_at_the_end():
    script = textwrap.dedent(
        """
        import weald.monkey; weald.monkey.patch_all()
        import os, signal, threading
        def wait_for_ever(signum, frame):
            print("waits", flush=True)
            threading.Event().wait()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, wait_for_ever)
        os.kill(os.getpid(), signal.SIGTERM)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            assert program.stdout.readline() == b"waits\n"
            program.send_signal(stdlib.SIGINT)
            _, errors = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert b"KeyboardInterrupt" in errors
