"""The compiled core's contract to the rest of weald.

Everything above `_core` imports from here only.  Times are seconds (float), sizes bytes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import Context
from io import RawIOBase
from queue import Empty as Empty
from queue import Full as Full
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from greenlet import GreenletExit as GreenletExit
from greenlet import getcurrent as getcurrent
from greenlet import greenlet
from typing_extensions import disjoint_base

_T = TypeVar("_T")
_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

# ---------------------------------------------------------------- logs

class Steady(RawIOBase):
    """The raw file under a log on descriptor `fd`: no write waits or raises.

    What cannot be written now is kept, up to `limit` bytes, and tried again at the next write or `retry`.
    """

    def __init__(self, fd: int, limit: int = ...) -> None: ...
    error: OSError | None
    def write(self, data: Any) -> int:
        """Write `data` (bytes) now, or keep it for later; returns its length."""
    def pending(self) -> int:
        """How many bytes are kept."""
    def retry(self) -> bool:
        """Write what is kept, if that is possible now; returns whether nothing is left."""
    def release(self) -> None:
        """Close the descriptor that was opened for this log; `fd` itself stays open."""

def steady(stream: Any) -> Any:
    """Return a text file for `stream` that never waits or raises; `stream` itself, if it has no descriptor."""

def report(text: str, stream: Any = None) -> None:
    """Write `text` to sys.stderr, or to `stream`, without waiting and without raising."""

def retry_logs() -> bool:
    """Write what the logs have kept, as far as that is possible now; returns whether nothing is left."""

# ---------------------------------------------------------------- loop and hub

READ: int  # 1
WRITE: int  # 2

class LoopExit(Exception):
    """A deadlock: nothing is left that could wake a greenlet.  The text says which greenlets wait, and for what."""

class BlockingSwitchOutError(AssertionError):
    """A blocking call was tried in the hub greenlet (in an event loop callback)."""

class InvalidSwitchError(AssertionError):
    """A parked greenlet was switched to by code that must not wake it."""

@disjoint_base
class Callback:
    """A call that the hub will make once, unless `stop()` cancels it."""

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None: ...
    callback: Callable[..., object] | None  # None once it is made or cancelled
    args: tuple[Any, ...] | None
    @property
    def pending(self) -> bool:
        """Whether the call is still to be made."""
    def stop(self) -> None:
        """Cancel the call.  Idempotent."""
    def close(self) -> None:
        """Cancel the call, as `stop`."""

@disjoint_base
class Timer:
    """Calls `callback(*args)` in the hub after `seconds`.  The callback must not block.

    With `ref` false the hub does not wait for it if nothing else is left to wait for.
    """

    def __init__(
        self, hub: Hub, seconds: float, callback: Callable[..., object], *args: Any, ref: bool = True
    ) -> None: ...
    @property
    def pending(self) -> bool:
        """Whether the call is still to be made."""
    def cancel(self) -> None:
        """Cancel the call.  Idempotent."""

EVENTS: object  # as the first argument after a watcher's callback: replaced by the events that occurred

@disjoint_base
class Watcher:
    """Calls a function in the hub when something happens in the event loop.  The function must not block.

    A context manager that closes it.
    """

    loop: EventLoop
    ref: bool  # whether the hub waits for it while it is active
    priority: int  # MINPRI to MAXPRI; among callbacks due at the same time, higher ones come first
    def __init__(self, loop: EventLoop, ref: bool = True, priority: int | None = None) -> None: ...
    callback: Callable[..., object] | None  # None while stopped
    args: tuple[Any, ...] | None
    @property
    def active(self) -> bool:
        """Whether it watches: started, and neither stopped nor over."""
    @property
    def pending(self) -> bool:
        """Whether an event has occurred for which the callback has not been called yet."""
    def start(self, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback(*args)` called in the hub at each event.  It must not block.

        ValueError if the watcher is closed or its loop destroyed, TypeError if `callback` is not callable.
        """
    def feed(self, revents: int, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback(*args)` called once in the hub, as if `revents` had come up.

        It need not be started, nor does this start it.  TypeError if `callback` is not callable.
        """
    def stop(self) -> None:
        """Stop watching, and drop events that have already occurred.  `start` begins again."""
    def close(self) -> None:
        """`stop`, for good.  Idempotent."""
    def __enter__(self) -> Watcher: ...
    def __exit__(self, *exc_info: Any) -> None: ...

@disjoint_base
class EventLoop:
    """A hub's loop as users see it (`hub.loop`): clock, watchers, callbacks.

    `EventLoop()` makes one with a backend of its own, which its maker drives with `run()`.
    """

    MINPRI: ClassVar[int]
    MAXPRI: ClassVar[int]
    error_handler: Any  # see `handle_error`
    @property
    def hub(self) -> Hub:
        """The hub whose loop it is."""
    def __init__(self, hub: Hub | None = None) -> None: ...
    @property
    def name(self) -> str:
        """The backend's name: "libuv", "libev" or "virtual"."""
    @property
    def destroyed(self) -> bool:
        """Whether it has been destroyed."""
    @property
    def activecnt(self) -> int:
        """How many watchers are active."""
    @property
    def pendingcnt(self) -> int:
        """How many callbacks and greenlets are ready to run."""
    def now(self) -> float:
        """Seconds on this loop's clock (monotonic; the virtual clock's own)."""
    def update_now(self) -> None:
        """Does nothing: the clock is never stale."""
    def update(self) -> None:
        """Does nothing: the clock is never stale."""
    def fileno(self) -> int:
        """The epoll descriptor, for embedding; -1 if there is none."""
    def run_callback(self, func: Callable[..., object], *args: Any) -> Callback:
        """Have `func(*args)` called in the hub soon; returns an object with `stop()` and `pending`.

        It must not block.  Any thread.  TypeError if it is not callable.
        """
    def run_callback_threadsafe(self, func: Callable[..., object], *args: Any) -> Callback:
        """As `run_callback`."""
    def ref(self) -> None:
        """Count one more thing that the hub waits for."""
    def unref(self) -> None:
        """Take back one `ref`."""
    def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Handle an uncaught exception of a callback: by `error_handler` if there is one, else by the hub.

        `error_handler` is a callable with these arguments, or an object with such a method `handle_error`.
        """
    def run(self, nowait: bool = False, once: bool = False) -> None:
        """Run a loop that belongs to no thread's hub until nothing is left to wait for.

        With `nowait` do one round without waiting, with `once` one round.  ValueError if it is destroyed, RuntimeError
        for the loop of this thread's hub, which runs by itself.
        """
    def break_(self, how: Any = None) -> None:
        """Have `run` return after this round.  `how` is ignored."""
    def destroy(self) -> bool | None:
        """Free a loop that belongs to no thread's hub; returns True, or None if it was destroyed already.

        (A hub's loop ends with `hub.destroy()`.)
        """
    def closing_fd(self, fd: int) -> bool:
        """Call this before closing descriptor `fd`: it wakes all that wait for it.  Returns whether it was watched."""
    # Each returns a watcher of a kind that is in watchers/.
    def io(self, fd: int, events: int, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of descriptor `fd`: `events` is READ, WRITE or both.  ValueError for other events and numbers."""
    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires after `after` seconds, then every `repeat` seconds unless that is 0."""
    def signal(self, signum: int, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of signal `signum`; the main thread's only.  ValueError if there is no such signal."""
    def child(self, pid: int, trace: int = 0, ref: bool = True) -> Any:
        """A watcher of the end of child process `pid`, which it reaps.  `trace` is ignored."""
    def stat(self, path: Any, interval: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of changes to the file `path`, looked at every `interval` seconds (0: every half second)."""
    def idle(self, ref: bool = True, priority: int | None = None) -> Watcher:
        """A watcher that fires when nothing else is ready."""
    def prepare(self, ref: bool = True, priority: int | None = None) -> Watcher:
        """A watcher that fires before each poll."""
    def check(self, ref: bool = True, priority: int | None = None) -> Watcher:
        """A watcher that fires after each poll."""
    def fork(self, ref: bool = True, priority: int | None = None) -> Watcher:
        """A watcher that fires once in a fork's child."""
    def async_(self, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires after its `send()`, which any thread may call."""

@disjoint_base
class Hub(greenlet):
    """The greenlet that runs a thread's event loop.

    `get_hub()` makes it at first use.  It is the parent of the greenlets that are spawned in the thread.
    """

    @property
    def loop(self) -> EventLoop:
        """The event loop as users see it: its clock, its name, its watchers."""
    main: greenlet  # the thread's main greenlet
    thread_ident: int
    traced: int  # how many watch switches to the hub greenlet: while it is not 0, every wait goes through it
    generation: int  # how many forks ago this hub began
    NOT_ERROR: tuple[type[BaseException], ...]
    SYSTEM_ERROR: tuple[type[BaseException], ...]
    # Free slots that upper rooms fill lazily.
    threadpool: Any
    resolver: Any
    resident: Any  # the loop of weald.aio.await_
    def run_callback(self, callback: Callable[..., object], *args: Any) -> Callback:
        """Have `callback(*args)` called in the hub greenlet soon, after everything that is ready.  Any thread.

        It must not block.  Returns the Callback, whose `stop()` cancels the call.  TypeError if it is not callable.
        """
    def run_callback_threadsafe(self, callback: Callable[..., object], *args: Any) -> Callback:
        """As `run_callback`."""
    def switch(self) -> Any:
        """Switch to the hub until another greenlet switches back; returns the value passed to that switch.

        For code that arranges its own waking, by `hub.run_callback(greenlet.switch, value)` for example.
        BlockingSwitchOutError in the hub greenlet itself.
        """
    def ref(self) -> None:
        """Count one more thing that can wake a greenlet (say, a job in a thread pool): the hub waits for it."""
    def unref(self) -> None:
        """Take back one `ref`.  Any thread."""
    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to run or to wait for, up to `timeout` seconds (None: for ever).

        Returns whether that happened in time; True at once if the hub is destroyed.
        """
    def wait_blocked(self) -> None:
        """Wait until all other greenlets of this hub are parked and no event that has arrived will wake one of them.

        It does not wait for later timers, for native threads or for other processes.
        """
    def run_loop(self, nowait: bool = False, once: bool = False) -> None:
        """Run a hub that is no thread's own, in the calling greenlet, until nothing is left to wait for.

        With `nowait` do one round without waiting, with `once` one round.  RuntimeError for this thread's own hub,
        which runs by itself.
        """
    def break_loop(self) -> None:
        """Have `run_loop` return after the round that is under way."""
    def owns(self, fd: int) -> bool:
        """Whether descriptor `fd` is the hub's own: its loop's, or the one through which signals wake it."""
    def close_range(self, close: Callable[[], object], first: int, end: int) -> None:
        """Call `close()`, which closes the descriptors from `first` up to but not including `end`.

        If that closes descriptors of the hub, they are opened again.  Greenlets that wait for one of the others get
        OSError(EBADF).
        """
    def has_rest(self) -> bool:
        """Whether something that was started here has not ended: something is ready, waited for, or parked."""
    def prepare_linger(self) -> None:
        """Have `rouse` end the next `linger`, even if it is called before that has begun."""
    def linger(self) -> None:
        """In a helper thread's main greenlet: run the thread's greenlets until they have ended or `rouse` is called.

        Call `prepare_linger` before.  Unlike `join`, it also waits for greenlets that only another thread can wake.
        """
    def rouse(self) -> None:
        """End a `linger`.  Any thread."""
    def destroy(self, destroy_loop: bool = True) -> None:
        """End the hub: free its loop and its descriptors.  Idempotent.

        The thread may make a new one afterwards.  Greenlets that are parked on this one stay parked for good.
        `destroy_loop` is ignored.
        """
    def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Handle an uncaught exception of `context` (a greenlet, a callback or None).

        It is printed, unless its type is in NOT_ERROR; if its type is in SYSTEM_ERROR, it is raised in the main
        greenlet.  `type`, `value` and `tb` are as in sys.exc_info().  Users override this to send errors elsewhere.
        """
    def handle_system_error(self, type: Any, value: Any, tb: Any = None) -> None:
        """Have the exception raised in the main greenlet, before everything else that is ready."""
    def print_exception(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Write the traceback and `context` to sys.stderr; nothing for KeyboardInterrupt and SystemExit."""
    def parked(self) -> list[tuple[greenlet, object, float]]:
        """The waiting greenlets: a list of (greenlet, object waited for, loop time when it began), oldest first."""

def get_hub() -> Hub:
    """This thread's hub, made at the first call.

    RuntimeError if there is none and the interpreter is shutting down.
    """

def get_hub_if_exists() -> Hub | None:
    """This thread's hub, or None if it has none."""

def get_hub_with_rest() -> Hub | None:
    """This thread's hub if something that was started in it has not ended, else None."""

def drop_mains_timeouts(hub: Hub) -> None:
    """Cancel the Timeouts that were started in the main greenlet of `hub`'s thread: the job they limited has ended."""

def is_on_main_thread() -> bool:
    """Whether this is the main native thread; in a fork's child, the one that has forked."""

def set_hub(hub: Hub | None) -> None:
    """Make `hub` this thread's hub; None: the next one is made when needed.

    The previous hub keeps its parked greenlets until it is destroyed.  ValueError for a hub that
    was made in another thread or is destroyed.
    """

def set_loop_factory(name: str | None) -> str | None:
    """Make the loops of new hubs with backend `name`: "libuv", "libev" or "virtual".

    None goes back to the environment variable WEALD_LOOP, or libuv.  ValueError, which lists the backends, for a name
    that is not known or not built.
    """

def loop_names() -> list[str]:
    """The names of the backends that this installation has."""

def sleep(seconds: float = 0, ref: bool = True) -> None:
    """Let others run for `seconds`; 0 or less lets everything that is ready run once.

    With `ref` false the hub does not wait for the sleep's end if nothing else is left to wait for.  In a thread without
    a hub the thread itself sleeps.  ValueError if `seconds` is nan.
    """

def name_rlock_as_patched() -> None:
    """Let RLock name itself `_thread.RLock`, which patching has made it: programs check that name (trio)."""

def prepare_hub() -> None:
    """Import everything a hub needs, so that one can be made anywhere, even in a signal handler."""

def begin_raw(function: Callable[[Any], object], argument: Any) -> None:
    """Run `function(argument)` in a new plain greenlet: at once if called in the hub, else as `spawn_raw` does."""

def set_handler_class(cls: type[greenlet]) -> None:
    """Run signal handlers in greenlets of class `cls`.

    A handler's greenlet acts for the one in its attribute `main`: the two share locals, locks and identity.
    """

def can_park() -> bool:
    """Whether other greenlets could run while this one waits: its thread has a hub, and this is not the hub itself."""

def waits_natively() -> bool:
    """Whether the interpreter is ending and this thread can have no hub any more."""

def monotonic() -> float:
    """time.monotonic(), the clock of all of weald's waiting; tests that replace `time.monotonic` do not reach it."""

def before_io() -> None:
    """Let others run if this greenlet has run for long.  For calls that do I/O and may never have to wait."""

def has_looked() -> None:
    """Let everything that is ready run once.  For calls that only look at state, which programs make in loops.

    In a coroutine on weald's event loop only if it makes very many such calls without a turn of the loop.
    """

def asked_in_vain() -> None:
    """Let others run if the caller checks again and again.  For checks that have found no change.

    The other greenlets may change what was checked, so check again afterwards.
    """

def use_asyncio(
    get_running_loop: Callable[[], Any],
    set_running_loop: Callable[[Any], object],
    swap_current_task: Callable[[Any, Any], Any] | None,
    tasks_of_loops: dict[Any, Any] | None,
) -> dict[Any, Any]:
    """Give the core asyncio's C functions.

    `swap_current_task` is None where asyncio keeps the current tasks in a dict by loop, `tasks_of_loops`.  Returns the
    current tasks of the loops that are put aside, by loop.
    """

def count_loops(change: int) -> None:
    """Add `change` to the number of asyncio loops that run in greenlets; 0 resets it, as in a fork's child."""

def put_loop_aside() -> Any:
    """Save asyncio's running loop and current task.  Returns them, or None, for `take_loop_back`."""

def take_loop_back(aside: Any) -> None:
    """Undo `put_loop_aside`, which returned `aside`."""

def run_in_midst(hub: Hub, interrupted: greenlet, runner: greenlet, *args: Any) -> None:
    """Run `runner(*args)`, a signal handler's greenlet, while `interrupted`, the current one, stands still.

    If the handler parks, `interrupted` goes on.
    """

def announced_signals() -> set[int]:
    """Take and return the numbers of the signals that are announced and not yet handled.

    Their Python handlers may not run after that: for a process that ends or is replaced while its main thread is stuck.
    May be called in any thread.  Signals that came while another descriptor was set are missing.
    """

def listen_to_signals(listener: Callable[[int], object]) -> None:
    """Have `listener(number)` called in a greenlet for each signal that is announced to the main thread's hub.

    It must neither wait nor raise.  It is called for every signal that has a Python handler, whichever that is.
    """

def unlisten_to_signals(listener: Callable[[int], object]) -> None:
    """Undo `listen_to_signals`."""

def raise_in_handler(hub: Hub, handler: greenlet, exception: BaseException) -> None:
    """Have `exception` raised in `handler`, a signal handler's greenlet that is parked, before all that is ready."""

def end_with(error: BaseException) -> None:
    """Have the process end as after `error`, an uncaught exception of the main thread; print it, as that does.

    For exceptions that come when the program's code is over and the interpreter's exit status is decided.  The last
    counts.  RuntimeError if C has no room for another function to call at the end.
    """

def wait_for_handler() -> bool:
    """Park until a Python signal handler has been called; return True.

    False at once in the hub itself, and in all threads but the main one, which alone runs handlers.
    """

def open_signalfd(signals: Iterable[int]) -> int:
    """Return a new descriptor that is readable while one of `signals` is pending: signalfd(2).  OSError if it fails."""

def signals_may_wake(handled: bool) -> None:
    """Set whether the program has signal handlers.  While it has, no deadlock is reported: they may wake a greenlet."""

def helper_idle(change: int) -> None:
    """Count the helper threads that wait for work: `change` is 1 when such a wait begins, and -1 when it ends.

    An idle helper wakes no greenlet.  So a deadlock can be reported while all other threads are idle helpers.
    """

def set_awaiting(function: Callable[[Any], Generator[Any, Any, Any]]) -> None:
    """Make `await` of a greenlet or an AsyncResult iterate over `function(object)`."""

def set_event_loop_class(cls: type[EventLoop]) -> None:
    """Make `hub.loop` an instance of `cls`, for hubs whose `loop` has not been read yet."""

def set_hub_class(cls: type[Hub] | None) -> None:
    """Make hubs of class `cls` (a subclass of Hub) from now on; None: of the default.  TypeError for other classes."""

def set_default_hub_class(find: Callable[[], type[Hub]]) -> None:
    """Until `set_hub_class` is called, make each new hub of the class that `find()` returns at that moment."""

def idle(priority: int = 0) -> None:
    """Let everything else that is ready run first.  `priority` is ignored."""

def spawn_raw(function: Callable[..., object], /, *args: Any, **kwargs: Any) -> greenlet:
    """Have `function(*args, **kwargs)` run in a new plain greenlet soon; returns the greenlet.

    It has no result, no links and no `join`; an uncaught exception goes to the hub's `handle_error`.  TypeError if
    `function` is not callable.
    """

# ---------------------------------------------------------------- primitives
# Every class works between greenlets of different threads and threads without a hub.

@disjoint_base
class Linkable:
    """Something that can be waited for: greenlets and threads park on it, callbacks link to it."""

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(self)` called once in this thread's hub when this is ready; soon, if it is already.

        The callback must not block.  TypeError if it is not callable.
        """
    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back one `rawlink(callback)`.  Does nothing if there is none."""
    def ready(self) -> bool:
        """Whether waiting for it would return at once."""
    def linkcount(self) -> int:
        """How many callbacks are linked and greenlets or threads wait here."""
    @property
    def hub(self) -> Hub | None:
        """The hub of the calling thread, None if it has none: waitable objects belong to no hub."""
    def statistics(self) -> dict[str, int]:
        """{"waiting": how many greenlets and threads are parked here, "links": how many callbacks}."""

@disjoint_base
class Event(Linkable):
    """Event(): a flag that can be waited for; threading.Event's contract.

    `set` wakes all waiters, even if the flag is cleared before they run.
    """

    def __init__(self) -> None: ...
    def is_set(self) -> bool:
        """Whether the flag is set."""
    isSet = is_set
    def set(self) -> None:
        """Set the flag and wake all waiters.  Any thread."""
    def clear(self) -> None:
        """Reset the flag; later `wait`s block."""
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, up to `timeout` seconds (None: for ever); returns whether it was set.

        Waiters that `set` has woken run before a `wait` that comes later returns.  OverflowError for a timeout above
        threading.TIMEOUT_MAX.
        """

@disjoint_base
class AsyncResult(Linkable, Generic[_T]):
    """AsyncResult(): an outcome, a value or an exception, that can be waited for.

    `set` and `set_exception` may be called from any thread.  Given as a link (`greenlet.link(result)`), it takes over
    the greenlet's outcome.  It also has a Future's `result`, `set_result`, `done`, `running`, `cancel`, `cancelled` and
    `add_done_callback`; only `exception` is an attribute here.
    """

    def __init__(self) -> None: ...
    @property
    def value(self) -> _T | None:
        """The value, or None if there is none (yet)."""
    exc_info: _ExcInfo | tuple[()]
    @property
    def exception(self) -> BaseException | None:
        """The exception, or None if there is none (yet)."""
    def successful(self) -> bool:
        """Whether there is a value."""
    def set(self, value: _T | None = None) -> None:
        """Store `value` and wake all waiters.  A later `set` replaces it.  Any thread."""
    def set_exception(self, exception: BaseException, exc_info: _ExcInfo | None = None) -> None:
        """Store `exception` (an instance or a class), which every `get` raises, and wake all waiters.

        `exc_info`, a triple as of sys.exc_info(), replaces it and brings a traceback.  TypeError if it is no exception.
        """
    def __await__(self) -> Generator[Any, Any, _T]:
        """`await` waits for the outcome; in coroutines on weald's event loop (weald.aio)."""
    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """The value, waiting for it up to `timeout` seconds (None: for ever) if `block`; or raises the exception.

        Raises weald.Timeout if there is no outcome in time, or none yet and `block` is false.
        """
    def get_nowait(self) -> _T:
        """The value, or the exception raised; weald.Timeout if there is no outcome yet."""
    def wait(self, timeout: float | None = None) -> _T | None:
        """Wait for an outcome, up to `timeout` seconds (None: for ever); returns the value, or None without one."""
    def __call__(self, source: Any) -> None:
        """Take over the outcome of `source`, a greenlet or an AsyncResult that is ready: for use as a link."""
    def result(self, timeout: float | None = None) -> _T:
        """As `get(timeout=timeout)`, by a Future's name; the builtin TimeoutError if there is no outcome in time."""
    def set_result(self, value: _T | None = None) -> None:
        """As `set`, by a Future's name."""
    def done(self) -> bool:
        """Whether there is an outcome."""
    def running(self) -> bool:
        """Returns False: an AsyncResult does not know whether its outcome is being computed."""
    def cancel(self) -> bool:
        """Store concurrent.futures.CancelledError if there is no outcome yet; returns whether it was stored."""
    def cancelled(self) -> bool:
        """Whether `cancel` ended it."""
    def add_done_callback(self, callback: Callable[[AsyncResult[_T]], object]) -> None:
        """Have `callback(self)` called when there is an outcome, by the greenlet that sets it; at once if it is there.

        Unlike with `rawlink`, no hub is needed.  It must not block; its exceptions are reported and go no further.
        TypeError if it is not callable.
        """

@disjoint_base
class Semaphore(Linkable):
    """Semaphore(value=1): at most `value` holders at a time.  First come, first served.

    `hub` is ignored.  ValueError if `value` is negative.
    """

    counter: int  # the permits that are free
    def __init__(self, value: int = 1, hub: Hub | None = None) -> None: ...
    def locked(self) -> bool:
        """Whether `acquire` would have to wait."""
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit, waiting for it up to `timeout` seconds (None: for ever) if `blocking`.

        Returns whether it was taken.
        """
    def release(self, n: int = 1) -> int:
        """Give back `n` permits; returns how many are free then.  Any greenlet or thread may.

        ValueError if `n` is less than 1.
        """
    def wait(self, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds (None: for ever) until a permit is free, without taking it.

        Returns how many are free then.
        """
    def __enter__(self) -> bool: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...

@disjoint_base
class BoundedSemaphore(Semaphore):
    """A Semaphore that refuses more releases than acquires: ValueError."""

class DummySemaphore:
    """DummySemaphore(value=None): a semaphore with any number of permits.  It counts nothing and never waits."""

    def __init__(self, value: int | None = None) -> None: ...
    def locked(self) -> bool:
        """Returns False: `acquire` never waits."""
    def ready(self) -> bool:
        """Returns True: a permit is always free."""
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Returns True at once."""
    def release(self, n: int = 1) -> None:
        """Does nothing."""
    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Does nothing: no permit ever becomes free."""
    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Does nothing: nothing is linked."""
    def wait(self, timeout: float | None = None) -> int:
        """Returns 1 at once."""
    def __enter__(self) -> None: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...

@disjoint_base
class Lock(Linkable):
    """Lock(): threading.Lock's contract; any greenlet or thread may release it.  First come, first served."""

    def __init__(self) -> None: ...
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it up to `timeout` seconds (-1: for ever) if `blocking`.

        Returns whether it was taken.  ValueError for a timeout of a call that is not blocking, OverflowError for one
        above threading.TIMEOUT_MAX.
        """
    def release(self) -> None:
        """Give the lock to the waiter that has waited longest, or free it.  RuntimeError if it is not held."""
    @property
    def counter(self) -> int:
        """1 if it can be taken at once, else 0, as of a semaphore."""
    def wait(self, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds (None: for ever) until it can be taken, without taking it; `counter` then."""
    def locked(self) -> bool:
        """Whether it is held."""
    def __enter__(self) -> bool: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...

class ImportLock(Lock):
    """A Lock that lets others run only when it has to wait.

    For the import system: code that releases a module must not be killed halfway, as if it waited there.
    """

@disjoint_base
class RLock(Linkable):
    """RLock(): threading.RLock's contract: its owner, a greenlet, may take it again.  First come, first served.

    The callbacks and coroutines of an asyncio loop exclude each other while they block.  One that is held across an
    `await` is the loop's: its other coroutines may take and release it meanwhile, as on asyncio, where they are one
    thread.
    """

    def __init__(self) -> None: ...
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, once more if this greenlet holds it, waiting up to `timeout` seconds (-1: for ever).

        Returns whether it was taken; without `blocking` it does not wait.  Errors as with Lock.
        """
    def release(self) -> None:
        """Undo one `acquire`.  The last `release` gives the lock to the waiter that has waited longest, or frees it.

        RuntimeError if this greenlet does not hold it.
        """
    def locked(self) -> bool:
        """Whether a greenlet holds it."""
    def __enter__(self) -> bool: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...
    def _is_owned(self) -> bool: ...
    def _recursion_count(self) -> int: ...
    def _release_save(self) -> Any: ...
    def _acquire_restore(self, state: Any) -> None: ...

@disjoint_base
class Condition:
    """Condition(lock=None): threading.Condition's contract; `lock` is an RLock by default."""

    def __init__(self, lock: Any = None) -> None: ...
    _lock: Any
    @property
    def acquire(self) -> Callable[..., bool]:
        """The lock's `acquire`."""
    @property
    def release(self) -> Callable[[], None]:
        """The lock's `release`."""
    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait to be notified, up to `timeout` seconds (None: for ever), and take the lock again.

        Returns whether it was notified.  RuntimeError if the lock is not held.
        """
    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """`wait` until `predicate()` is true, up to `timeout` seconds (None: for ever); returns its last value."""
    def notify(self, n: int = 1) -> None:
        """Wake the `n` greenlets or threads that have waited longest.  RuntimeError if the lock is not held."""
    def notify_all(self) -> None:
        """Wake all waiters.  RuntimeError if the lock is not held."""
    def __enter__(self) -> bool: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...

class ShutDown(Exception):
    """A queue was shut down: queue.ShutDown, and weald's own before Python 3.13."""

@disjoint_base
class SimpleQueue(Generic[_T]):
    """SimpleQueue(maxsize=None, items=None): first in, first out.

    It holds `maxsize` items (None, 0 or less: without limit) and begins with `items`.  Iterating gets items until
    StopIteration (the class or an instance) arrives.
    """

    def __init__(self, maxsize: int | None = None, items: Iterable[_T] | None = None) -> None: ...
    maxsize: int | None  # None: without limit
    queue: Any  # the container with the items; another may be assigned
    @property
    def hub(self) -> Hub | None:
        """The hub of the calling thread, None if it has none: a queue belongs to no hub."""
    def _create_queue(self, items: Iterable[_T] = ()) -> Any:
        """Return the container for the items, which begins with `items`."""
    # Subclasses may override these.
    def _init(self, maxsize: int | None, items: Iterable[_T] = ()) -> None:
        """Make the container of the items."""
    def _put(self, item: _T) -> None:
        """Keep `item`; there is room."""
    def _get(self) -> _T:
        """Take the next item; there is one."""
    def _peek(self) -> _T:
        """Return the next item; there is one."""
    def _qsize(self) -> int:
        """Return how many items are kept."""
    @property
    def is_shutdown(self) -> bool:
        """Whether `shutdown` has been called."""
    def qsize(self) -> int:
        """How many items are in the queue."""
    def empty(self) -> bool:
        """Whether `get` would have to wait."""
    def full(self) -> bool:
        """Whether `put` would have to wait."""
    def put(self, item: _T, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`, waiting for room up to `timeout` seconds (None: for ever) if `block`.

        Raises Full if there is no room in time, ShutDown after `shutdown`, ValueError for a negative timeout.
        """
    def put_nowait(self, item: _T) -> None:
        """Put `item`, or raise Full if there is no room now."""
    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Take the next item, waiting for it up to `timeout` seconds (None: for ever) if `block`.

        Raises Empty if there is none in time, ShutDown if there is none left after `shutdown`, ValueError for a
        negative timeout.
        """
    def get_nowait(self) -> _T:
        """Take the next item, or raise Empty if there is none now."""
    def peek(self, block: bool = True, timeout: float | None = None) -> _T:
        """The next item, as `get`, without taking it."""
    def peek_nowait(self) -> _T:
        """The next item without taking it; Empty if there is none now."""
    def __iter__(self) -> Iterator[_T]: ...
    def statistics(self) -> dict[str, int]:
        """{"items", "getters": greenlets and threads waiting in get, "putters": in put}."""

@disjoint_base
class Queue(SimpleQueue[_T]):
    """Queue(maxsize=None, items=None, unfinished_tasks=None): a SimpleQueue that counts unfinished items.

    queue.Queue's contract: `task_done` and `join`, and `shutdown`.  `unfinished_tasks` is the count to begin with
    (None: how many `items` there are).
    """

    unfinished_tasks: int
    def __init__(
        self, maxsize: int | None = None, items: Iterable[_T] | None = None, unfinished_tasks: int | None = None
    ) -> None: ...
    def task_done(self) -> None:
        """Count an item that was taken as done.  ValueError if this is called more often than items were put."""
    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item is done, up to `timeout` seconds (None: for ever); returns whether they are."""
    def shutdown(self, immediate: bool = False) -> None:
        """Have `put` raise ShutDown from now on, and `get` once the queue is empty (queue.Queue.shutdown).

        With `immediate`, drop the items in the queue; they count as done.
        """

JoinableQueue = Queue

class LifoQueue(Queue[_T]):
    """A Queue that gives the last item put first."""

class PriorityQueue(Queue[_T]):
    """A Queue that gives the smallest item first."""

class Channel(SimpleQueue[_T]):
    """Channel(): a queue that holds nothing: `put` waits until a `get` takes the item, and the other way round."""

    def __init__(self, maxsize: int = 1) -> None: ...
    @property
    def getters(self) -> list[greenlet | None]:
        """The greenlets that wait in `get`, in their order; None for a thread without a hub."""
    @property
    def putters(self) -> list[greenlet | None]:
        """The greenlets that wait in `put`, in their order; None for a thread without a hub."""
    @property
    def balance(self) -> int:
        """How many putters wait, minus how many getters."""

@disjoint_base
class Timeout(BaseException):
    """Timeout(seconds=None, exception=None, ref=True, priority=-1)

    Raises *exception* in the current greenlet after *seconds* (float); the Timeout itself without one.
    With `exception=False` the `with` statement swallows it.  `seconds=None` never expires.  It is raised while
    the greenlet waits: a computation that never waits is not interrupted.

    Use it in a `with` statement, or `start()` it and `close()` it in a `finally` clause.  With `ref=False` the hub does
    not wait for it if nothing else is left to wait for.  `priority` is ignored.  ValueError if *seconds* is nan.
    """

    seconds: float | None
    exception: Any
    def __init__(
        self, seconds: float | None = None, exception: Any = None, ref: bool = True, priority: int = -1
    ) -> None: ...
    def start(self) -> None:
        """Begin to count, in the current greenlet.  AssertionError if it is pending already."""
    @classmethod
    def start_new(cls, timeout: Any = None, exception: Any = None, ref: bool = True) -> Timeout:
        """Make a Timeout of *timeout* seconds and start it; returns it.

        *timeout* may be a Timeout already, which is started unless it is pending.
        """
    @property
    def pending(self) -> bool:
        """Whether it is going to be raised."""
    def cancel(self) -> None:
        """Cancel it, if it is pending.  It can be started again.  Idempotent."""
    def close(self) -> None:
        """`cancel`, by the name that goes with `start`."""
    def __enter__(self) -> Timeout: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> bool | None: ...

def with_timeout(seconds: float | None, function: Callable[..., _T], /, *args: Any, **kwds: Any) -> _T:
    """Call `function(*args, **kwds)` under a Timeout of `seconds` (or a Timeout); returns what it returns.

    When the time is over, the keyword argument `timeout_value` is returned, if given; otherwise the Timeout is raised.
    """

class Cancelled(GreenletExit):
    """Raised by every wait of a greenlet in a cancelled scope.  Let it pass: the scope catches it.

    It derives from GreenletExit, because code that cleans up when its greenlet is killed has the same to do here.
    """

@disjoint_base
class CancelScope:
    """CancelScope(*, deadline=inf, shield=False): a `with` block whose waits can be cancelled together.

    Once `cancel()` has been called or *deadline* (seconds, on the clock of `current_time`) has passed, every wait
    in the block raises Cancelled until the block is left, and its end catches Cancelled (`cancelled_caught`).
    Tasks of a TaskGroup that is opened in the block are part of it.  A computation that never waits is not interrupted.

    With *shield*, cancellations of the scopes around it do not reach the block.  It is entered once, and left by
    the greenlet that has entered it.  ValueError if *deadline* is nan.
    """

    def __init__(self, *, deadline: float = ..., shield: bool = False) -> None: ...
    @property
    def deadline(self) -> float:
        """When it is cancelled by itself, in seconds on the clock of `current_time`; inf: never.  It can be moved."""
    @deadline.setter
    def deadline(self, value: float) -> None: ...
    @property
    def shield(self) -> bool:
        """Whether cancellations of the scopes around it do not reach it.  It can be changed."""
    @shield.setter
    def shield(self, value: bool) -> None: ...
    @property
    def cancel_called(self) -> bool:
        """Whether it has been cancelled, by a call or because its deadline has passed."""
    @property
    def cancelled_caught(self) -> bool:
        """Whether its end has caught Cancelled."""
    def cancel(self) -> None:
        """Cancel it, for good.  Any thread.  Before it is entered, it is cancelled from the beginning.  Idempotent."""
    def __enter__(self) -> Self: ...
    def __exit__(self, typ: Any, value: Any, tb: Any) -> bool | None: ...

@disjoint_base
class TaskGroup:
    """A `with` block whose end waits for the tasks that were spawned in it.

    If a task or the block raises an exception, everything else in the group is cancelled, and when all have ended
    the exceptions are raised as an ExceptionGroup.  A kill or a Timeout of the block's greenlet cancels the tasks, too,
    and passes on when they have ended.  A task that is killed or cancelled has ended without an error.
    `cancel_scope` is the scope of the block and of all tasks: `group.cancel_scope.cancel()` ends them.
    """

    def __init__(self) -> None: ...
    @property
    def cancel_scope(self) -> CancelScope:
        """The scope of the block and of all tasks."""
    def __enter__(self) -> Self: ...
    def __exit__(self, typ: Any, value: Any, tb: Any) -> bool | None: ...
    def spawn(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Greenlet:
        """Have `function(*args, **kwargs)` run in a new task of this group soon; returns its Greenlet.

        Tasks may spawn more of them.  RuntimeError before the block and after its end, and in another thread than
        the block's; TypeError if `function` is not callable.
        """

def move_on_after(seconds: float | None, *, shield: bool = False) -> CancelScope:
    """A CancelScope that is cancelled `seconds` after it was entered (None: never); its block then ends early.

    `cancelled_caught` says whether it did.  ValueError if `seconds` is nan.
    """

def fail_after(seconds: float | None, *, shield: bool = False) -> CancelScope:
    """As `move_on_after`, but a block whose time is over raises TimeoutError."""

def current_time() -> float:
    """Seconds on the clock of deadlines: that of the thread's loop (monotonic, or the virtual clock's own)."""

def current_effective_deadline() -> float:
    """The earliest deadline that applies here, in seconds on the clock of `current_time`.

    inf if there is none; -inf if a scope has been cancelled: the next wait raises Cancelled.
    """

@disjoint_base
class local:
    """local(): an object with separate attributes for each greenlet; threading.local's contract.

    A subclass's `__init__` runs once in each greenlet that uses the object; `__slots__` are shared.
    """

    def _peek(self, owner: greenlet) -> dict[str, Any] | None:
        """The attributes that greenlet `owner` has here: a dict, or None if it has never used this.  For debuggers."""

@disjoint_base
class Greenlet(greenlet):
    """Greenlet(run=None, *args, **kwargs): a light thread; once started, the hub runs `run(*args, **kwargs)` in it.

    Subclasses may override `_run` instead of passing `run`.  `Greenlet.spawn(f, *args)` makes one and starts it.
    TypeError if `run` is not callable.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any  # what it returned; None before
    name: str  # to show to people; "Greenlet-<minimal_ident>" until it is set
    minimal_ident: int  # a number, 0 or more, that no other living greenlet of the hub has: the smallest free one
    spawning_greenlet: Any  # a weak reference to the greenlet that spawned it, if it remembers (see `track_spawns`)
    spawn_tree_locals: dict[str, Any]  # shared by all greenlets spawned, directly or not, from the same root
    spawning_stack_limit: int  # how many frames `spawning_stack` has at most
    @property
    def spawning_stack(self) -> Any:
        """Where it was spawned, as a frame (for traceback.print_stack), or None."""
    @staticmethod
    def add_spawn_callback(callback: Callable[[Greenlet], object]) -> None:
        """Have `callback(greenlet)` called whenever a Greenlet is started; once, however often it was added."""
    @staticmethod
    def remove_spawn_callback(callback: Callable[[Greenlet], object]) -> None:
        """Take back `add_spawn_callback`.  Does nothing if `callback` was not added."""
    def __init__(self, run: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None: ...
    _run: Any
    @classmethod
    def spawn(cls, *args: Any, **kwargs: Any) -> Greenlet:
        """Make a greenlet, with the arguments that the class takes, and start it; returns it."""
    @classmethod
    def spawn_later(cls, seconds: float, *args: Any, **kwargs: Any) -> Greenlet:
        """As `spawn`, but start it after `seconds`.  Without a function, TypeError."""
    def start(self) -> None:
        """Have it run soon.  Does nothing if it has been started."""
    def start_later(self, seconds: float) -> None:
        """Have it run after `seconds`.  Does nothing if it has been started."""
    def kill(self, exception: Any = ..., block: bool = True, timeout: float | None = None) -> None:
        """Raise `exception` in it, and wait for its end, up to `timeout` seconds (None: for ever), if `block`.

        `exception` is a class, an instance, or a triple as of sys.exc_info().  A greenlet that has not begun to run
        never will.  Does nothing if it has ended.
        """
    def throw(self, *args: Any) -> Any:
        """Switch to it at once and raise there, as greenlet.throw; a kill if it has not begun to run.

        The arguments are an exception, or a class and its value.  Does nothing if it has ended.
        """
    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, up to `timeout` seconds (None: for ever).  `ready()` tells whether it has ended."""
    def __await__(self) -> Generator[Any, Any, Any]:
        """`await` waits for its end; in coroutines on weald's event loop (weald.aio)."""
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Its value; raises the exception that it ended with.

        Waits for its end, up to `timeout` seconds (None: for ever), if `block`.  Raises weald.Timeout if it has not
        ended by then.
        """
    def ready(self) -> bool:
        """Whether it has ended, with a value or an exception."""
    def successful(self) -> bool:
        """Whether it ended with a value, GreenletExit counted as one."""
    @property
    def started(self) -> bool:
        """Whether it has been started and has not ended."""
    @property
    def loop(self) -> EventLoop:
        """The event loop it runs on (`hub.loop`)."""
    @property
    def exception(self) -> BaseException | None:
        """The exception it ended with, or None."""
    @property
    def exc_info(self) -> _ExcInfo | None:
        """(type, exception, traceback) of the exception it ended with, or None."""
    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(self)` called in the hub once it has ended; it must not block.  TypeError if not callable."""
    def link(self, callback: Callable[[Any], object], SpawnedLink: Any = None) -> None:
        """Have `callback(self)` called in a new greenlet once it has ended.

        `SpawnedLink` is a class whose instance, made with `callback`, becomes the callback of `rawlink`.
        """
    def link_value(self, callback: Callable[[Any], object], SpawnedLink: Any = None) -> None:
        """As `link`, only if it ends with a value."""
    def link_exception(self, callback: Callable[[Any], object], SpawnedLink: Any = None) -> None:
        """As `link`, only if it ends with an exception."""
    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back one link to `callback`.  Does nothing if there is none."""
    def unlink_all(self) -> None:
        """Take back every link."""
    def has_links(self) -> bool:
        """Whether there are links, or greenlets and threads that wait for its end."""
    gr_context: Context | None

def living(cls: type[_T]) -> list[_T]:
    """A list of all objects of class `cls` that the garbage collector knows."""

def track_spawns(tree: bool | None = None, stacks: bool | None = None) -> None:
    """Choose whether new greenlets remember who spawned them (`tree`), and where (`stacks`); None changes nothing.

    At first they remember who, and not where.
    """

def spawn(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Greenlet:
    """Have `function(*args, **kwargs)` run in a new Greenlet soon; returns the Greenlet.

    TypeError if `function` is not callable.
    """

def spawn_later(seconds: float, *args: Any, **kwargs: Any) -> Greenlet:
    """Have a function, the first of `args`, run with the other arguments in a new Greenlet after `seconds`.

    Returns the Greenlet.  TypeError if there is no function.
    """

def joinall(
    greenlets: Iterable[Any], timeout: float | None = None, raise_error: bool = False, count: int | None = None
) -> list[Any]:
    """Wait for `count` (None: all) of `greenlets` to end, up to `timeout` seconds (None: for ever).

    Returns a list of those that have ended.  With `raise_error`, the first exception that one of them ends with is
    raised.
    """

def killall(
    greenlets: Iterable[greenlet], exception: Any = ..., block: bool = True, timeout: float | None = None
) -> None:
    """Raise `exception` in all of `greenlets`.

    Waits for their end, up to `timeout` seconds (None: for ever), if `block`.  Raises weald.Timeout if they have not
    all ended by then.
    """

def wait(objects: Iterable[Any] | None = None, timeout: float | None = None, count: int | None = None) -> Any:
    """Wait until `count` (None: all) of `objects` are ready, up to `timeout` seconds (None: for ever).

    Returns a list of those that are, in the order in which they became ready.  Without `objects`, wait until the hub
    has nothing left to do, and return whether that happened in time.
    """

class iwait(Iterator[Any]):
    """iwait(objects, timeout=None, count=None): greenlets, events, … in the order in which they become ready.

    The iteration ends after `count` of them (None: all), or when `timeout` seconds (None: no limit) are over.  Its end,
    and that of a `with` block, takes back the links to those that are not ready.  With None as `objects` it gives one
    value: what `wait(None, timeout)` returns.
    """

    def __init__(
        self, objects: Iterable[Any] | None, timeout: float | None = None, count: int | None = None
    ) -> None: ...
    def __next__(self) -> Any: ...
    def __enter__(self) -> iwait: ...
    def __exit__(self, t: Any, v: Any, tb: Any) -> None: ...
    def close(self) -> None:
        """End the iteration and take back the links."""

# ---------------------------------------------------------------- descriptors

@disjoint_base
class Descriptor:
    """Descriptor(fd, timeout=None): a file descriptor that greenlets of any thread may wait for.

    It never closes the number itself.  `timeout` is how long a socket's calls wait (seconds; None: for ever, 0.0:
    never).  ValueError if `fd` or `timeout` is negative.

    `receive_limit` and `send_limit` are the socket's options SO_RCVTIMEO and SO_SNDTIMEO (seconds; 0.0: none).  They
    end a wait that has no timeout, with OSError(EAGAIN).
    """

    def __init__(self, fd: int, timeout: float | None = None) -> None: ...
    @property
    def fd(self) -> int:
        """The number, or -1 after `close`."""
    timeout: float | None  # seconds; None waits for ever, 0.0 never waits
    receive_limit: float
    send_limit: float
    ref: bool  # whether a wait for it counts as something that may wake a greenlet
    def wait_read(self, timeout: float | None = None) -> None:
        """Park until it is readable.  TimeoutError after `timeout` seconds, OSError(EBADF) if it is closed."""
    def wait_write(self, timeout: float | None = None) -> None:
        """Park until it is writable.  TimeoutError after `timeout` seconds, OSError(EBADF) if it is closed."""
    def close(self) -> None:
        """Make every wait raise OSError(EBADF), and leave the loops.  Call it before close(2).  Idempotent."""
    def detach(self) -> None:
        """As `close`, for a number that stays open: `select` calls and watchers of it go on."""
    def rouse(self) -> None:
        """Make all readers and writers try again: the socket was shut down, which the system does not always report."""

def number_ends(fd: int) -> None:
    """Call this before descriptor `fd` is closed or becomes another file: its waiters get OSError(EBADF).

    For numbers that no Descriptor closes.  To `poll_fds` the number becomes ready.
    """

def number_changes(fd: int, change: Callable[[], _T]) -> _T:
    """Return `change()`, which makes descriptor `fd` another file.  Its readers and writers get OSError(EBADF).

    `poll_fds` and watchers of the number look at the new file from then on.
    """

def set_cut_short(make: Callable[[], OSError] | None) -> None:
    """Make waits that end because their descriptor is closed raise `make()`, an OSError; None: OSError(EBADF)."""

def waits_in_calls(fd: int) -> bool:
    """Whether calls on number `fd` wait for ever, because its Descriptor has no timeout.

    To the system such a socket is non-blocking.
    """

def hung_up(fd: int) -> bool:
    """Whether no more data will come from socket `fd`: the peer has ended, or the socket was shut down for reading."""

def wait_read(fileno: int, timeout: float | None = None, timeout_exc: BaseException | None = None) -> None:
    """Park until descriptor `fileno` is readable, up to `timeout` seconds (None: for ever).

    Then raises `timeout_exc` (None: TimeoutError); OSError(EBADF) if it is closed, ValueError if it is negative.
    """

def wait_write(fileno: int, timeout: float | None = None, timeout_exc: BaseException | None = None) -> None:
    """Park until descriptor `fileno` is writable; timeouts and errors as with `wait_read`."""

def wait_readwrite(fileno: int, timeout: float | None = None, timeout_exc: BaseException | None = None) -> None:
    """Park until descriptor `fileno` is readable or writable; timeouts and errors as with `wait_read`."""

def poll_fds(wanted: dict[int, int], timeout: float | None, own: bool = False) -> dict[int, int]:
    """Wait until one of several descriptors is ready, up to `timeout` seconds (None: for ever).

    `wanted` maps descriptors to the events to wait for, READ or WRITE or both.  Returns a dict of the same form with
    the events that have occurred, empty when the time is over.  OSError(EBADF) if a descriptor is closed.  `own` says
    that they are files of weald's, which no other code closes: that takes fewer system calls.
    """

# Methods of weald.socket.socket that go straight to the descriptor: functions whose first
# argument is a socket with a Descriptor in its slot `_descriptor`.
def recv(self: Any, bufsize: int, flags: int = 0, /) -> bytes:
    """Receive up to `bufsize` bytes, as socket.recv does; b"" at the end of the stream.

    Parks until there are some.  TimeoutError after the socket's timeout.
    """

def recv_into(self: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    """Receive up to `nbytes` bytes (0: as many as fit) into `buffer`, as `recv`; returns how many."""

def send(self: Any, data: Any, flags: int = 0, /, timeout: float | None = ...) -> int:
    """Send some of `data`, as socket.send does; without a timeout all of it.  Returns how many bytes.

    Parks while there is no room, up to `timeout` seconds (None: for ever; by default the socket's timeout): then
    TimeoutError.
    """

def sendall(self: Any, data: Any, flags: int = 0, /) -> None:
    """Send all of `data`, as socket.sendall does.  TimeoutError if that takes longer than the socket's timeout."""

def tls_read(self: Any, len: int = 1024, buffer: Any = None) -> Any:
    """Return up to `len` bytes, b"" at the end; with a `buffer`, the number of bytes put into it."""

def tls_sendall(self: Any, data: Any, flags: int = 0) -> None:
    """Send all of `data`, as ssl.SSLSocket.sendall does; each part of it within the socket's timeout."""
