"""`weald serve --threads`: WSGI applications that block in C run in native threads.

Called by: wsgi.py, asgi.py.

A request is one job of a thread: the call of the application, each step of the iterator it returns, and its close().
The connection's greenlet waits for the thread and does the work that only the loop's thread may do: it reads the body
and sends the response.  The thread waits meanwhile, so a slow client slows its application down.

Invariants:
- The connection is used only in its greenlet.  Only `start_response` is called in the thread: it sets attributes that
  the greenlet reads later, and the greenlet waits meanwhile.
- A thread never waits for a greenlet that has left: it gets ConnectionResetError instead.
- The application's exceptions are raised in the greenlet, or reported if the greenlet has left.
"""

import errno
import traceback
from _queue import SimpleQueue
from collections.abc import Callable
from functools import partial
from typing import Any

from weald._base.originals import get_original
from weald._core import report
from weald.http.body import FileWrapper, Input
from weald.queue import Empty
from weald.queue import SimpleQueue as Queue
from weald.threadpool import ThreadPool

__all__ = ["threaded"]

_allocate_lock = get_original("_thread", "allocate_lock")

# The messages that a thread sends to its greenlet, each with a value.
_DO, _RESULT, _PIECE, _END, _FAILED = "do", "result", "piece", "end", "failed"

# Keys of the environment whose values work in the loop's thread only.
_OF_THE_LOOP = ("weald.disconnected", "weald.upgrade", "werkzeug.socket")


def threaded(application: Any, pool: ThreadPool | None) -> Any:
    """Return a WSGI application that runs `application` in the threads of `pool`; None: `application` itself."""
    if pool is None:
        return application

    def in_thread(environ: dict[str, Any], start_response: Any) -> Any:
        call = _Call(application, environ, start_response)
        pool.spawn(call.work)
        return call.next_result()

    return in_thread


class _Call:
    """One request, between its greenlet and the thread that answers it."""

    def __init__(self, application: Any, environ: dict[str, Any], start_response: Any) -> None:
        self._application = application
        self._start = start_response
        self._environ = {**environ, "wsgi.multithread": True}
        for name in _OF_THE_LOOP:
            self._environ.pop(name, None)
        body = environ["wsgi.input"]
        if isinstance(body, Input):
            body.read_through(self._do)
        else:  # the connection itself, for another protocol
            self._environ["wsgi.input"] = Input(None)
        self._said: Queue[tuple[str, Any]] = Queue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._asking = _allocate_lock()
        self._over = False  # whether the application has ended, or the greenlet has left

    # ---------------------------------------------------------------- in the thread

    def work(self) -> None:
        """Answer the request."""
        end: tuple[str, Any] = _END, None
        try:
            self._answer()
        except BaseException as error:
            end = _FAILED, error
        left, self._over = self._over, True
        self._said.put(end)
        if left:
            self._report_rest()

    def _answer(self) -> None:
        result = self._application(self._environ, self._start_response)
        try:
            if isinstance(result, list | tuple):  # its length is known
                self._said.put((_RESULT, list(result)))
            elif isinstance(result, FileWrapper):
                self._said.put((_RESULT, result))
                result = None  # the greenlet closes it
            else:
                for piece in result:
                    if piece:
                        self._ask(_PIECE, piece)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _start_response(self, status: Any, headers: Any, *rest: Any) -> Callable[[bytes], None]:
        write = self._start(status, headers, *rest)
        return lambda data: self._do(partial(write, data))

    def _do(self, function: Callable[[], Any]) -> Any:
        """Make the greenlet call `function`.  Return its result or raise its exception."""
        return self._ask(_DO, function)

    def _ask(self, what: str, value: Any) -> Any:
        with self._asking:
            if self._over:
                raise ConnectionResetError(errno.ECONNRESET, "the request has ended")
            self._said.put((what, value))
            answer, error = self._answers.get()
        if error is not None:
            raise error
        return answer

    # ---------------------------------------------------------------- in the greenlet

    def next_result(self) -> Any:
        """Handle the thread's messages until it has a piece to send.  Return the result for the WSGI server."""
        try:
            while True:
                what, value = self._said.get()
                if what is _PIECE:
                    return _Pieces(self, value)
                if what is _RESULT or what is _END:
                    return value or []
                if what is _FAILED:
                    raise value
                self._perform(value)
        except BaseException:
            self.leave()
            raise

    def next_piece(self) -> Any:
        """Called when the last piece has been sent: return the next one, None at the end."""
        self._answers.put((None, None))
        result = self.next_result()
        return result.first if isinstance(result, _Pieces) else None

    def _perform(self, function: Callable[[], Any]) -> None:
        try:
            answer, error = function(), None
        except Exception as raised:
            answer, error = None, raised
        self._answers.put((answer, error))

    def leave(self) -> None:
        """Stop serving the thread, because the greenlet leaves."""
        self._over = True
        # For a thread that waits for an answer; one that does not finds that all is over.
        self._answers.put((None, ConnectionResetError(errno.ECONNRESET, "the client has left")))
        self._report_rest()

    def _report_rest(self) -> None:
        """Report an exception that the application has raised after the greenlet has left."""
        try:
            while True:
                what, value = self._said.get_nowait()
                if what is _FAILED and not isinstance(value, ConnectionResetError):
                    report("".join(traceback.format_exception(value)))
        except Empty:
            pass


class _Pieces:
    """A WSGI application's result, with pieces from a thread; `first` is the first of them."""

    def __init__(self, call: _Call, first: Any) -> None:
        self._call = call
        self.first = first
        self._begun = self._ended = False

    def __iter__(self) -> "_Pieces":
        return self

    def __next__(self) -> Any:
        if not self._begun:
            self._begun = True
            return self.first
        piece = None if self._ended else self._call.next_piece()
        if piece is None:
            self._ended = True
            raise StopIteration
        return piece

    def close(self) -> None:
        """Called when the response has been sent, or the client has left."""
        if not self._ended:
            self._ended = True
            self._call.leave()
