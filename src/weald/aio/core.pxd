# See core.pyx.
from cpython.object cimport PyObject

from weald._core.c_greenlet cimport greenlet
from weald._core.descriptor cimport FdEntry, Listener
from weald._core.hooks cimport Driven
from weald._core.hub cimport Hub, Runnable, Waiter
from weald._core.ring cimport Ring
from weald._core.timers cimport BaseTimer

cdef class Core(Driven)

cdef class Job:
    cdef bint queued  # it is in its loop's queue, or runs
    cdef int run(self, Core loop) except -1
    cdef PyObject *connection(self) noexcept  # borrowed

cdef class Handle(Job):
    cdef readonly object _loop
    cdef readonly object _callback
    cdef readonly tuple _args
    cdef readonly object _context
    cdef readonly bint _cancelled
    cdef public object _source_traceback
    cdef object text  # its repr, kept when it is cancelled in debug mode
    cdef object __weakref__

cdef int call_in_context(object handle, object callback, tuple args, object context, Core loop) except -1

cdef class TimerHandle(BaseTimer):
    cdef readonly object _loop
    cdef readonly object _callback
    cdef readonly tuple _args
    cdef readonly object _context
    cdef readonly bint _cancelled
    cdef public object _source_traceback
    cdef object text
    cdef double at
    cdef object __weakref__
    cdef int run(self, Core loop) except -1

cdef class Waker:
    cdef Waiter waiter

cdef class FdWatcher(Listener):
    cdef Core loop
    cdef FdEntry entry  # None while the loop has no hub
    cdef readonly int fd
    cdef object file  # the object that `fd` came from; None if the caller gave the number
    cdef Job reader
    cdef Job writer
    cdef tuple file_id  # device and inode, if it was added while the loop had no hub
    cdef bint counted  # among what the hub waits for
    cdef int want(self) except -1
    cdef int count(self, bint wanted) except -1
    cdef int ran(self, Job job) except -1
    cdef bint is_open(self) except -1
    cdef int bind(self) except -1
    cdef int unbind(self) except -1

cdef class StartSpare(Runnable):
    cdef Core loop

cdef class Core(Driven):
    cdef Ring ready
    cdef Py_ssize_t polled  # how many of the queued jobs a poll has put there: of descriptors and of timers
    cdef Hub hub  # the hub it is attached to; None before it runs
    cdef unsigned long generation  # the hub's at that time; it changes in a fork's child
    cdef greenlet root  # the greenlet in `run_forever`
    cdef greenlet driver  # the greenlet that runs the jobs; None: parked in a callback, and no other has taken over
    cdef Waiter idle  # the driver's, while there is nothing to run
    cdef bint starting  # a StartSpare is under way
    cdef object first_hook  # for asynchronous generators, of a resident loop; bound methods, made once
    cdef object final_hook
    cdef bint resident  # it runs without a root
    cdef bint stalls  # a callback that blocks stalls the loop, as asyncio's do
    cdef bint stalled  # the callback that is running has blocked
    cdef dict steps  # by greenlet, of the callbacks that have taken an RLock; see lock.Step
    cdef object failure  # SystemExit or KeyboardInterrupt, raised by a callback that the root did not run
    cdef dict future_arguments  # of a Future of this loop; None before the first
    cdef object first_context  # of the task that `begun_task` makes; None: it makes none
    cdef Handle first_step  # of that task
    cdef dict fds  # descriptor number: FdWatcher
    cdef PyObject *running  # the job that the driver runs, borrowed
    cdef dict busy  # by the id of a connection of which a callback is parked: the greenlet that is parked
    cdef dict parked  # these connections, by the id of the parked job
    cdef list held  # jobs that wait until a parked one has returned
    cdef bint retrying  # a timer is set that lets the held jobs try again
    cdef list unbound  # timers of a loop without a hub: it has not run yet, or its thread has ended
    cdef public bint _closed
    cdef public bint _stopping
    cdef public bint _debug
    cdef public object _thread_id
    cdef public object _current_handle
    cdef public double slow_callback_duration
    cdef int enqueue(self, object job) except -1
    cdef int queue(self, Handle handle, object callback, tuple args, object context) except -1
    cdef TimerHandle new_timer(self, double when, object callback, tuple args, object context)
    cdef bint remove(self, object fd, int event) except -1
    cdef FdWatcher find(self, object fd)
    cdef int wake(self) except -1
    cdef int end_step(self) except -1
    cdef int take_over(self, greenlet me) except -1
    cdef int drive(self, bint is_root) except -1
    cdef int run_job(self, object job) except -1
    cdef bint must_wait(self, object job) except -1
    cdef int returned(self, object job) except -1
    cdef int go_on(self) except -1
    cdef int wait_for_context(self, object job) except -1
    cdef int run_in_debug(self, object job) except -1
    cdef int start_timer(self, TimerHandle timer) except -1
    cdef int next_turn(self) except -1
    cdef object begun_task(self, object coroutine, object context)
    cdef int check(self, object callback, str method, bint thread) except -1
    cdef FdWatcher watcher(self, object fd)
    cdef FdWatcher watch_job(self, object fd, int event, Job job)
    cdef Handle watch_callback(self, object fd, int event, object callback, tuple args, object context)
