"""`python -m weald.monkey --doctor`: imports that come too early, their lines, what was patched and what was not."""

import subprocess
import sys

from helpers import PATIENCE

PROGRAM = """\
import queue, socket, threading, time
from time import sleep
import library
import requests
class Derived(queue.SimpleQueue):
    pass
class Holder:
    def __init__(self):
        self.pause = time.sleep
holder = Holder()
pauses = [time.sleep]
def enclosing():
    pause = time.sleep
    return lambda: pause
enclosed = enclosing()
def holding():
    made = queue.SimpleQueue()
    yield made
generator = holding()
next(generator)
held = threading.Lock()
held.acquire()
free = threading.Lock()
made = socket.socket()
end = threading.Event()
thread = threading.Thread(target=end.wait, name="early")
thread.start()
import weald.monkey
weald.monkey.patch_all()
import json.tool
print(sleep is time.sleep, library.sel.__module__)
end.set()
"""

LIBRARY = """\
import time
from select import select as sel
def wait(pause=time.sleep): ...
class Waiter:
    pause = time.sleep
"""


def doctor(folder, program, status=0):
    """The program's output, and the report by its headings."""
    script = folder / "program.py"
    script.write_text(program)
    (folder / "library.py").write_text(LIBRARY)
    done = subprocess.run(
        [sys.executable, "-m", "weald.monkey", "--doctor", str(script), "argument"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    report = {}
    heading = ""
    for line in done.stderr.replace(str(folder) + "/", "").splitlines():
        if line.startswith("  "):
            report[heading].append(line.strip())
        elif line:
            heading = line.rstrip(":")
            report[heading] = []
    return done.stdout, report


def test_report(tmp_path):
    out, report = doctor(tmp_path, PROGRAM)
    assert out == "True weald.select\n"
    first, early, mended, rest = report
    assert first == "weald doctor: patched by program.py:29"
    assert (early, mended, rest) == ("imported before that", "mended", "could not be mended")
    assert {"library: program.py:3", "requests: program.py:4"} <= set(report[early])
    assert any(line.startswith("urllib3: ") and line.endswith("(from program.py:4)") for line in report[early])
    assert not any("json" in line for line in report[early])
    assert {
        "__main__.sleep (time.sleep): program.py:2",
        "library.sel (select.select): library.py:2, imported by program.py:3",
        "a default of library.wait() (time.sleep)",
        "library.Waiter.pause (time.sleep)",
    } <= set(report[mended])
    assert sorted(report[rest]) == [
        "__main__.held is a native lock (held): waiting for it blocks all greenlets",
        "a queue.SimpleQueue made before blocks all greenlets while it waits",
        "an object of class __main__.Holder holds the original time.sleep",
        "class __main__.Derived (program.py:5) is derived from the original queue.SimpleQueue",
        "the closure of __main__.enclosing.<locals>.<lambda>() (program.py:14) holds the original time.sleep",
        "the list __main__.pauses holds the original time.sleep",
        "thread 'early' was started before and goes on natively",
    ]


def test_in_order(tmp_path):
    _, report = doctor(tmp_path, "import weald.monkey\nweald.monkey.patch_all()\nimport requests, library\n")
    assert list(report) == [
        "weald doctor: patched by program.py:2",
        "imported before that: nothing",
        "mended: nothing",
        "could not be mended: nothing",
    ]


def test_a_program_that_patches_nothing(tmp_path):
    out, report = doctor(tmp_path, "import sys, requests; print(sys.argv[1:]); sys.exit(3)", status=3)
    assert out == "['argument']\n"
    assert list(report) == ["weald doctor: the program patches nothing"]


def test_a_program_that_patches_in_parts_and_fails(tmp_path):
    program = "import library, weald.monkey\nweald.monkey.patch_time()\n1 / 0\n"
    _, report = doctor(tmp_path, program, status=1)
    assert any(heading.endswith("patched by program.py:2") for heading in report)
    assert report["mended"] == ["a default of library.wait() (time.sleep)", "library.Waiter.pause (time.sleep)"]
    assert "ZeroDivisionError: division by zero" in report
