"""Other interpreters in a patched program: only the greenlet that calls one waits."""

import sys

import pytest
from helpers import run_patched

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters is new in Python 3.14")


@pytest.mark.parametrize("before", ["", "import concurrent.interpreters, concurrent.futures.interpreter"])
def test_others_run_while_an_interpreter_does(before):
    out = run_patched(
        """
        import os, threading, weald
        from concurrent import interpreters

        def run(call, *args):
            r, w = os.pipe()
            weald.spawn(os.write, w, b"x")
            print(call(*(str(arg).replace("FD", str(r)) for arg in args)))

        code = "import os; assert os.read(FD, 1) == b'x'"
        interpreter = interpreters.create()
        run(interpreter.exec, code)
        run(lambda code: interpreter.call(exec, code), code)
        run(lambda code: interpreter.call_in_thread(exec, code).join(), code)
        queue = interpreters.create_queue()
        interpreter.prepare_main(queue=queue)
        threading.Timer(0.001, queue.put, ("item",)).start()
        interpreter.exec("print(queue.get(timeout=100), flush=True)")
        try:
            interpreter.exec("1 / 0")
        except interpreters.ExecutionFailed as error:
            print(error.excinfo.type.__name__)
        interpreter.close()
        """,
        before=before,
    )
    assert out.splitlines() == ["None", "None", "None", "item", "ZeroDivisionError"]


def test_a_pool_of_interpreters():
    """Its calls run at the same time: each waits for the one before it."""
    out = run_patched(
        """
        import math, os
        from concurrent.futures import InterpreterPoolExecutor

        with InterpreterPoolExecutor(3) as executor:
            print(list(executor.map(math.sqrt, [1, 4, 9])))
            pipes = [os.pipe() for _ in range(3)]
            pass_on = "import os; os.read({}, 1); os.write({}, b'x')"
            calls = [executor.submit(exec, pass_on.format(pipes[i + 1][0], pipes[i][1])) for i in range(2)]
            calls.append(executor.submit(exec, f"import os; os.write({pipes[2][1]}, b'x')"))
            print(os.read(pipes[0][0], 1), [call.result() for call in calls])
            try:
                executor.submit(int, "x").result()
            except ValueError as error:
                print(error)
        """
    )
    error = "invalid literal for int() with base 10: 'x'"
    assert out.splitlines() == ["[1.0, 2.0, 3.0]", "b'x' [None, None, None]", error]
