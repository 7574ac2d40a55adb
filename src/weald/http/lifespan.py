"""An ASGI application's lifespan (ASGI 3, lifespan spec 2.0): its startup and its shutdown.

Called by: asgi_server.py; weald.asgi, which exports StartupError.

Invariants:
- The application's task lives from `start` to `stop`, on the loop that its requests run on.
- A failure is reported once: by an exception of `start`, or by a line in the error log.
"""

import asyncio
import traceback
from collections.abc import Mapping
from typing import Any

from weald._core import Event
from weald.aio.bridge import get_resident_loop

__all__ = ["Lifespans", "StartupError"]

MODES = ("auto", "on", "off")


class StartupError(Exception):
    """An application's startup has failed, or `lifespan` is "on" and the application does not support it."""


class Lifespans:
    """Lifespans(applications, mode, error_log): the lifespans of `applications`, ASGI applications by name.

    Several servers may share one: the program starts it before them and stops it after them.  `mode` is "on"; "off":
    the applications get no events; "auto": one that does not support it (Django's, say) runs without.  `states` has the
    dict that each has filled for its requests, None if it runs without a lifespan.
    """

    def __init__(self, applications: Mapping[str, Any], mode: str, error_log: Any) -> None:
        if mode not in MODES:
            raise ValueError(f"lifespan must be one of {', '.join(MODES)}, not {mode!r}")
        self.states: dict[str, dict[str, Any] | None] = {}
        self._applications = dict(applications) if mode != "off" else {}
        self._mode = mode
        self._error_log = error_log
        self._begun: list[Lifespan] = []

    def start(self) -> None:
        """Run the applications' startup, one after the other.  Raises StartupError."""
        loop = get_resident_loop()
        for name, application in self._applications.items():
            lifespan = Lifespan(application, self._mode, loop, self._error_log)
            try:
                lifespan.start()
            except BaseException:
                self.stop(1.0)
                raise
            self._begun.append(lifespan)
            self.states[name] = lifespan.state

    def stop(self, timeout: float | None = None) -> None:
        """Run their shutdown, the last one's first; after `timeout` seconds each (None: never) it is cancelled."""
        while self._begun:
            self._begun.pop().stop(timeout)


class Lifespan:
    """The lifespan of one application: `start` and `stop` send it events, through a task of `loop`."""

    def __init__(self, application: Any, mode: str, loop: asyncio.AbstractEventLoop, error_log: Any) -> None:
        self.state: dict[str, Any] | None = {}
        self._application = application
        self._mode = mode
        self._loop = loop
        self._error_log = error_log
        self._task: asyncio.Task[None] | None = None
        self._told: asyncio.Event = asyncio.Event()  # of the end
        self._asked = self._asked_last = False  # has the application been given the first event, and the second?
        self._started = Event()
        self._ended = Event()
        self._complete = False  # did the startup succeed?
        self._failure: str | None = None  # the application's message about its failed startup
        self._error: BaseException | None = None  # its exception

    def start(self) -> None:
        """Send the startup event, and wait until the application is ready.  Raises StartupError."""
        self._task = self._loop.create_task(self._run())
        self._started.wait()
        if self._complete:
            return
        error, self._error = self._error, None
        if self._failure is not None:
            task, self._task = self._task, None
            task.cancel()
            raise StartupError(f"the application's startup failed: {self._failure or 'it does not say why'}")
        self._task, self.state = None, None
        what = f"{type(error).__name__}: {error}" if error is not None else "it returned"
        if self._mode == "on":
            raise StartupError(f"the application takes no lifespan: {what}") from error
        self._error_log.write(f"the application takes no lifespan ({what}); it is served without\n")

    def stop(self, timeout: float | None = None) -> None:
        """Send the shutdown event and wait for the end; after `timeout` seconds (None: never) it is cancelled."""
        task, self._task = self._task, None
        if task is None:
            return
        self._told.set()
        if not self._ended.wait(timeout):
            self._error_log.write(f"the application's shutdown was not complete after {timeout:g} s: cancelled\n")
            task.cancel()
            self._ended.wait(1.0)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not self._started.is_set():
                self._error = error
            elif self._failure is None:
                text = "".join(traceback.format_exception(error))
                self._error_log.write(f"the application's lifespan failed:\n{text}")
        finally:
            self._started.set()
            self._ended.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._told.wait()
        if self._asked_last:  # in a loop without an end; nothing else comes
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        self._asked_last = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.is_set():
            self._complete = True
            self._started.set()
        elif kind == "lifespan.startup.failed" and not self._started.is_set():
            self._failure = str(message.get("message", ""))
            self._started.set()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed") and self._told.is_set():
            if kind == "lifespan.shutdown.failed":
                self._failure = text = str(message.get("message", ""))
                self._error_log.write(f"the application's shutdown failed: {text}\n")
            self._ended.set()
        else:
            raise RuntimeError(f"an event that may not be sent here: {kind!r}")
