"""Queues and channels.

Called by: weald.queue, everybody.
Invariants:
- Items are handed over: `put` gives the next item to the getter that has waited longest, `get` moves the item of the
  putter that has waited longest into the queue.  So getters and putters are served in the order in which they came, and
  no getter finds that a newcomer has emptied the queue.
- A getter that is killed after it was given an item puts it back in its place, or gives it to the next getter.
- Getters wait only while there is nothing to get, putters only while there is no room.
"""

from weald._core.hub cimport Waiter
from weald._core.threads cimport current_hub
from weald._core.waiters cimport WaitList, first, made_hub, new_waiter, park, seconds, wake_all
from weald._core.yielding cimport give_way

import queue as _stdlib
from collections import deque
from heapq import heapify, heappop, heappush

Empty = _stdlib.Empty
Full = _stdlib.Full

try:
    ShutDown = _stdlib.ShutDown
except AttributeError:
    class ShutDown(Exception):
        """Raised when put/get with shut-down queue (queue.ShutDown, which is there since Python 3.13)."""

from weald._core.timeout import Timeout, expired

cdef object CLOSED = object()  # what getters and putters are woken with by shutdown
cdef object PEEKED = object()  # what a peeking waiter is told


cdef object timeout_error(object timeout, object otherwise):
    """What to raise after a wait of `timeout`: `otherwise`, or what the caller's own Timeout raises if it is one."""
    return expired(timeout) if isinstance(timeout, Timeout) else otherwise


cdef int check_timeout(bint block, object timeout) except -1:
    if block and not isinstance(timeout, Timeout) and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return 0


cdef class SimpleQueue:
    """SimpleQueue(maxsize=None, items=None): first in, first out.

    It holds `maxsize` items (None, 0 or less: without limit) and begins with `items`.  Iterating gets items until
    StopIteration (the class or an instance) arrives.
    """

    cdef object __weakref__
    cdef readonly object queue  # the container: deque, or list for the other orders
    cdef object add_item  # its bound methods, looked up once
    cdef object take_item
    cdef Py_ssize_t limit  # -1: none; 0: a Channel
    cdef Py_ssize_t handed  # how many items were given to getters that waited; each has its number
    cdef list returned  # the numbers of the items at the head of the queue that came back; None without any
    cdef WaitList getters
    cdef WaitList putters  # waiter.value is the item
    cdef WaitList peekers
    cdef bint closed

    def __init__(self, maxsize=None, items=None):
        self.set_limit(maxsize)
        self.queue = queue = self._create_queue(items if items is not None else ())
        self.add_item = queue.append
        self.take_item = queue.popleft if hasattr(queue, "popleft") else queue.pop

    cdef int set_limit(self, object maxsize) except -1:
        self.limit = -1 if maxsize is None or maxsize <= 0 else maxsize
        return 0

    # -- how the order is kept; LifoQueue and PriorityQueue override these

    def _create_queue(self, items=()):
        return deque(items)

    cdef int insert(self, object item) except -1:
        self.add_item(item)
        return 0

    cdef object take(self):
        if self.returned is not None:
            del self.returned[0]
            if not self.returned:
                self.returned = None
        return self.take_item()

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        """Put back an item that was handed over, before everything that came after it: getters may die in any order."""
        cdef Py_ssize_t place = 0
        if self.returned is None:
            self.returned = []
        while place < len(self.returned) and self.returned[place] < number:
            place += 1
        self.returned.insert(place, number)
        self.queue.insert(place, item)
        return 0

    cdef object first_item(self):
        return self.queue[0]

    cdef int added(self) except -1:
        """An item has been put; Queue counts it."""
        return 0

    # -- state

    @property
    def maxsize(self):
        """How many items it holds at most; None: without limit.  Setting it lets waiting putters in."""
        return None if self.limit < 0 else self.limit

    @maxsize.setter
    def maxsize(self, value):
        self.set_limit(value)
        self.admit_putters()

    @property
    def is_shutdown(self):
        """Whether `shutdown` has been called."""
        return self.closed

    def qsize(self):
        """How many items are in the queue."""
        return len(self.queue)

    def __len__(self):
        return len(self.queue)

    def __bool__(self):
        """A queue is true, empty or not."""
        return True

    def empty(self):
        """Whether `get` would have to wait."""
        if not self.queue:
            give_way(True)
        return not self.queue

    def full(self):
        """Whether `put` would have to wait."""
        return self.limit >= 0 and len(self.queue) >= self.limit

    # -- put

    cdef int check_open(self) except -1:
        if self.closed:
            raise ShutDown("this queue is shut down")
        return 0

    def put(self, item, block=True, timeout=None):
        """Put `item`, waiting for room up to `timeout` seconds (None: for ever) if `block`.

        Raises Full if there is no room in time, ShutDown after `shutdown`, ValueError for a negative timeout.
        """
        cdef Waiter waiter
        cdef double wait
        if timeout is not None:
            check_timeout(block, timeout)
        if self.closed:
            self.check_open()
        if self.limit < 0 or len(self.queue) < self.limit:
            self.added()
            self.hand_over(item)
            return
        if self.limit == 0 and self.getters.head != NULL:
            waiter = first(&self.getters)
            if waiter is not None:
                self.added()
                self.hand(waiter, item)
                return
        if not block:
            raise Full
        if made_hub():
            self.put(item, block, timeout)
            return
        waiter = new_waiter((item,))
        wait = seconds(timeout)
        if self.limit == 0 and self.peekers.head != NULL:
            wake_all(&self.peekers, PEEKED)
        if not park(&self.putters, waiter, self, wait):
            raise timeout_error(timeout, Full)
        if waiter.value is CLOSED:
            raise ShutDown("this queue was shut down")

    def put_nowait(self, item):
        """Put `item`, or raise Full if there is no room now."""
        self.put(item, False)

    cdef int hand_over(self, object item) except -1:
        """There is room for `item`: put it into the queue, and give the next item to a waiting getter."""
        cdef Waiter waiter
        self.insert(item)
        if self.peekers.head != NULL:
            wake_all(&self.peekers, PEEKED)
        if self.getters.head != NULL:
            waiter = first(&self.getters)
            if waiter is not None:
                self.hand(waiter, self.take())
        return 0

    cdef int hand(self, Waiter getter, object item) except -1:
        self.handed += 1
        getter.resume((item, self.handed))
        return 0

    cdef int admit_putters(self) except -1:
        """Let waiting putters in as far as there is room."""
        cdef Waiter waiter
        while self.putters.head != NULL and (self.limit < 0 or len(self.queue) < self.limit):
            waiter = first(&self.putters)
            if waiter is None:
                return 0
            item = (<tuple>waiter.value)[0]
            self.added()
            waiter.resume(None)
            self.hand_over(item)
        return 0

    # -- get

    def get(self, block=True, timeout=None):
        """Take the next item, waiting for it up to `timeout` seconds (None: for ever) if `block`.

        Raises Empty if there is none in time, ShutDown if there is none left after `shutdown`, ValueError for a
        negative timeout.
        """
        cdef Waiter waiter
        cdef double wait
        if timeout is not None:
            check_timeout(block, timeout)
        if self.queue:
            item = self.take()
            if self.putters.head != NULL:
                self.admit_putters()
            return item
        if self.limit == 0 and self.putters.head != NULL:
            waiter = first(&self.putters)
            if waiter is not None:
                item = (<tuple>waiter.value)[0]
                self.added()
                waiter.resume(None)
                return item
        if self.closed:
            self.check_open()
        if not block:
            give_way(True)
            if self.queue or self.closed or self.putters.head != NULL:
                return self.get(False)
            raise Empty
        if made_hub():
            return self.get(block, timeout)
        waiter = new_waiter(None)
        wait = seconds(timeout)
        try:
            if not park(&self.getters, waiter, self, wait):
                raise timeout_error(timeout, Empty)
        except BaseException:
            if waiter.lost and waiter.value is not CLOSED:
                self.restore(waiter.value)
            raise
        if waiter.value is CLOSED:
            raise ShutDown("this queue was shut down")
        return (<tuple>waiter.value)[0]

    def get_nowait(self):
        """Take the next item, or raise Empty if there is none now."""
        return self.get(False)

    cdef int restore(self, tuple handed) except -1:
        """A getter was killed after `hand` gave it `handed`: give that to the next getter, or put it back."""
        cdef Waiter waiter
        if self.getters.head != NULL:
            waiter = first(&self.getters)
            if waiter is not None:
                waiter.resume(handed)
                return 0
        self.put_back(handed[0], handed[1])
        if self.peekers.head != NULL:
            wake_all(&self.peekers, PEEKED)
        return 0

    def peek(self, block=True, timeout=None):
        """The next item, as `get`, without taking it."""
        cdef Waiter waiter
        cdef double wait = seconds(timeout)
        made_hub()
        if not self.queue and block and wait >= 0.0:
            wait += current_hub().backend.time()
        while not self.queue:
            if self.limit == 0 and self.putters.head != NULL:
                return (<tuple>(<Waiter>self.putters.head).value)[0]
            self.check_open()
            if not block:
                raise Empty
            waiter = new_waiter(None)
            if not park(&self.peekers, waiter, self,
                        max(wait - current_hub().backend.time(), 0.0) if wait >= 0.0 else -1.0):
                raise timeout_error(timeout, Empty)
        return self.first_item()

    def peek_nowait(self):
        """The next item without taking it; Empty if there is none now."""
        return self.peek(False)

    # -- iteration, reports

    def __iter__(self):
        return self

    def __next__(self):
        item = self.get()
        if item is StopIteration or isinstance(item, StopIteration):
            raise StopIteration
        return item

    next = __next__

    def copy(self):
        """A new queue of the same kind with the same items."""
        return type(self)(self.maxsize, self.queue)

    def statistics(self):
        """{"items", "getters": greenlets and threads waiting in get, "putters": in put}."""
        return {"items": len(self.queue), "getters": self.getters.count, "putters": self.putters.count}

    def __repr__(self):
        limit = "" if self.limit < 0 else f" maxsize={self.limit}"
        return f"<{type(self).__name__} at {id(self):#x} items={len(self.queue)}{limit}{self.waiting()}>"

    __str__ = __repr__

    cdef str waiting(self):
        text = ""
        if self.getters.count:
            text += f" getters={self.getters.count}"
        if self.putters.count:
            text += f" putters={self.putters.count}"
        return text

    @classmethod
    def __class_getitem__(cls, item):
        return cls


cdef class Queue(SimpleQueue):
    """Queue(maxsize=None, items=None, unfinished_tasks=None): a SimpleQueue that counts unfinished items.

    queue.Queue's contract: `task_done` and `join`, and `shutdown`.  `unfinished_tasks` is the count to begin with
    (None: how many `items` there are).
    """

    cdef readonly Py_ssize_t unfinished_tasks
    cdef WaitList joiners

    def __init__(self, maxsize=None, items=None, unfinished_tasks=None):
        SimpleQueue.__init__(self, maxsize, items)
        self.unfinished_tasks = len(self.queue) if unfinished_tasks is None else unfinished_tasks

    cdef int added(self) except -1:
        self.unfinished_tasks += 1
        return 0

    def task_done(self):
        """An item that was taken is done.  ValueError if that is called more often than items were put."""
        if self.unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self.unfinished_tasks -= 1
        if self.unfinished_tasks == 0:
            wake_all(&self.joiners, None)

    def join(self, timeout=None):
        """Wait until every item is done, up to `timeout` seconds (None: for ever); returns whether they are."""
        made_hub()
        if self.unfinished_tasks > 0:
            park(&self.joiners, new_waiter(None), self, seconds(timeout))
        return self.unfinished_tasks == 0

    def shutdown(self, immediate=False):
        """Have `put` raise ShutDown from now on, and `get` once the queue is empty (queue.Queue.shutdown).

        With `immediate`, drop the items in the queue; they count as done.
        """
        self.closed = True
        if immediate:
            while self.queue:
                self.take()
                if self.unfinished_tasks > 0:
                    self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                wake_all(&self.joiners, None)
        wake_all(&self.putters, CLOSED)
        if not self.queue:
            wake_all(&self.getters, CLOSED)
            wake_all(&self.peekers, PEEKED)

    def copy(self):
        """A new queue of the same kind with the same items and as many unfinished ones."""
        return type(self)(self.maxsize, self.queue, self.unfinished_tasks)


JoinableQueue = Queue


cdef class LifoQueue(Queue):
    """A Queue that gives the last item put first."""

    def _create_queue(self, items=()):
        return list(items)

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        self.queue.append(item)
        return 0

    cdef object first_item(self):
        return self.queue[-1]


cdef class PriorityQueue(Queue):
    """A Queue that gives the smallest item first."""

    def _create_queue(self, items=()):
        heap = list(items)
        heapify(heap)
        return heap

    cdef int insert(self, object item) except -1:
        heappush(self.queue, item)
        return 0

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        heappush(self.queue, item)
        return 0

    cdef object take(self):
        return heappop(self.queue)


cdef class Channel(SimpleQueue):
    """Channel(): a queue that holds nothing: `put` waits until a `get` takes the item, and the other way round."""

    def __init__(self, maxsize=1):
        if maxsize != 1:
            raise ValueError("a Channel holds nothing: it has no maxsize")
        SimpleQueue.__init__(self)

    cdef int set_limit(self, object maxsize) except -1:
        self.limit = 0
        return 0

    @property
    def balance(self):
        """How many putters wait, minus how many getters."""
        return self.putters.count - self.getters.count

    def full(self):
        """True: it holds nothing."""
        return True

    def empty(self):
        """True: it holds nothing."""
        return True
