"""Chromium, driven through its DevTools protocol.  Called by: test_examples.py."""

import base64
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from itertools import count

from conftest import require_program
from helpers import PATIENCE
from websockets.sync.client import connect

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    "--remote-debugging-port=0",
)


class Page:
    """A tab, which shows one page."""

    def __init__(self, connection):
        self.connection = connection
        self.numbers = count(1)

    def call(self, method, **parameters):
        """Send a command of the protocol and return its result.  Events that come meanwhile are dropped."""
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.connection.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result = answer["result"]
                return result

    def run(self, script):
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script, seconds=PATIENCE):
        """The expression's value, once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"{script} did not become true; the page: {self.run(BODY)}"
            time.sleep(0.02)
        return value

    def type(self, text):
        """Type it as on a keyboard, with Enter at the end."""
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def picture(self):
        """A screenshot, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


BODY = "(document.body?.innerText ?? '')"  # while it loads there is none


class Browser:
    def __init__(self, address, stack):
        self.address = address
        self.stack = stack

    def open(self, url):
        """A page, once it is complete."""
        request = urllib.request.Request(f"http://{self.address}/json/new?{url}", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as response:
            target = json.load(response)["webSocketDebuggerUrl"]
        page = Page(self.stack.enter_context(connect(target, max_size=None, proxy=None, open_timeout=PATIENCE)))
        page.wait_for("document.readyState == 'complete' && location.href != 'about:blank'")
        return page


@contextmanager
def chromium():
    program = require_program("chromium", "chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = ""
        try:
            for line in process.stderr:
                said += line
                if listening := re.search(r"DevTools listening on ws://([^/]+)/", line):
                    break
            else:
                raise AssertionError(f"chromium did not start: {said}")
            with ExitStack() as stack:
                yield Browser(listening[1], stack)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
