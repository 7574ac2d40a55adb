"""Queues and channels.

Called by: weald.queue, every module that passes items between greenlets.
Invariants:
- Items are handed over: `put` gives the next item to the getter that has waited longest, `get` moves the item of the
  putter that has waited longest into the queue.  So getters and putters are served in the order in which they came, and
  no later caller empties the queue before a getter that was woken.
- A getter that is killed after it was given an item gives it to the next getter, or puts it back in its place.
- Getters wait only while the queue is empty, putters only while it is full.
- Subclasses may keep the items as they like: `_init`, `_put`, `_get`, `_peek`, `_qsize` and `qsize`, which are called
  only for classes that override one of them.  If one raises, so does the `put` or `get`, and the queue is unchanged.

Long because five kinds of queue, each short, share the handing over.
"""

cimport cython

from weald._core.hub cimport Waiter
from weald._core.threads cimport current_hub, has_hub
from weald._core.waiters cimport WaitList, first, made_hub, new_waiter, park, seconds, time_is_over, wake_all
from weald._core.yielding cimport give_way, let_others_run

import queue as _stdlib
from collections import deque
from types import GenericAlias
from heapq import heapify, heappop, heappush

Empty = _stdlib.Empty
Full = _stdlib.Full

try:
    ShutDown = _stdlib.ShutDown
except AttributeError:
    class ShutDown(Exception):
        """A queue was shut down (queue.ShutDown from Python 3.13 on)."""

from weald._core.timeout import Timeout, expired

from _thread import TIMEOUT_MAX

cdef object CLOSED = object()  # the value with which `shutdown` wakes getters and putters
cdef object PEEKED = object()  # the value with which peeking waiters are woken


cdef tuple HOOKS = ("_init", "_put", "_get", "_peek", "_qsize", "qsize")
cdef dict customs = {}  # class of a queue: whether a class outside this module overrides one of the HOOKS


cdef bint is_custom(type cls) except -1:
    cdef object known = customs.get(cls)
    if known is None:
        foreign = [base for base in cls.__mro__[:-1] if base not in OURS]
        known = customs[cls] = any([name in vars(base) for base in foreign for name in HOOKS])
    return known


cdef class Failure:
    """The value with which a getter or putter is woken if `_get` or `_put` has raised."""

    cdef object error


cdef Failure failure(object error):
    cdef Failure made = Failure.__new__(Failure)
    made.error = error
    return made


@cython.freelist(64)
@cython.no_gc
cdef class Handed:
    """The value with which a getter is woken: an item, and its number among the items handed over so far."""

    cdef object item
    cdef Py_ssize_t number


cdef list waiting_in(WaitList *waiters):
    """The greenlets that wait there, in their order; None for a thread without a hub."""
    cdef void *at = waiters.head
    cdef list found = []
    while at != NULL:
        found.append((<Waiter>at).parked)
        at = (<Waiter>at).next
    return found


cdef object timeout_error(object timeout, object otherwise):
    """The exception to raise after a wait of `timeout`: `otherwise`, or for a Timeout the one that it raises."""
    return expired(timeout) if isinstance(timeout, Timeout) else otherwise


cdef int check_timeout(bint block, object timeout) except -1:
    if block and not isinstance(timeout, Timeout) and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    if block and not isinstance(timeout, Timeout) and timeout > TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return 0


cdef class SimpleQueue:
    """SimpleQueue(maxsize=None, items=None): first in, first out.

    It holds `maxsize` items (None, 0 or less: without limit) and begins with `items`.  Iterating gets items until
    StopIteration (the class or an instance) arrives.
    """

    cdef object __weakref__
    cdef object items  # the container: deque, or list for the other orders
    cdef object add_item  # its bound methods, looked up once
    cdef object take_item
    cdef bint custom  # a subclass decides how items are kept: see `is_custom`
    cdef Py_ssize_t limit  # -1: none; 0: a Channel
    cdef Py_ssize_t handed  # how many items were given to waiting getters: the number of the last one
    cdef list returned  # the numbers of the items at the head of the queue that were put back; None without any
    cdef WaitList getting
    cdef WaitList putting  # waiter.value is the item
    cdef WaitList peeking
    cdef bint closed

    def __init__(self, maxsize=None, items=None):
        self.custom = type(self) not in OURS and is_custom(type(self))
        self.set_limit(maxsize)
        if not self.custom:
            self.keep_in(self._create_queue(items if items is not None else ()))
        elif items is None:
            self._init(self.maxsize)
        else:
            self._init(self.maxsize, items)

    cdef int set_limit(self, object maxsize) except -1:
        self.limit = -1 if maxsize is None or maxsize <= 0 else maxsize
        return 0

    cdef int keep_in(self, object container) except -1:
        self.items = container
        self.add_item = getattr(container, "append", None)
        self.take_item = container.popleft if hasattr(container, "popleft") else getattr(container, "pop", None)
        return 0

    @property
    def queue(self):
        """The container of the items.  Another one may be assigned; the queue then has its items."""
        return self.items

    @queue.setter
    def queue(self, container):
        self.keep_in(container)
        self.returned = None

    @property
    def hub(self):
        """The hub of the calling thread, None if it has none: a queue belongs to no hub."""
        return current_hub() if has_hub() else None

    # -- how items are kept; subclasses may override these

    def _create_queue(self, items=()):
        """Return the container for the items, which begins with `items`."""
        return deque(items)

    def _init(self, maxsize, items=()):
        """Make the container of the items."""
        self.keep_in(self._create_queue(items))

    def _put(self, item):
        """Keep `item`; there is room."""
        self.add_item(item)

    def _get(self):
        """Take the next item; there is one."""
        return self.take_item()

    def _peek(self):
        """Return the next item; there is one."""
        return self.items[0]

    def _qsize(self):
        """Return how many items are kept."""
        return len(self.items)

    # -- how the order is kept; LifoQueue and PriorityQueue override these

    @cython.final
    cdef Py_ssize_t held(self) except -1:
        return self.qsize() if self.custom else len(self.items)

    cdef int insert(self, object item) except -1:
        if self.custom:
            self._put(item)
        else:
            self.add_item(item)
        return 0

    cdef object take(self):
        if self.custom:
            return self._get()
        if self.returned is not None:
            del self.returned[0]
            if not self.returned:
                self.returned = None
        return self.take_item()

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        """Put back item `number` that was handed over, in its order: getters may be killed in any order."""
        cdef Py_ssize_t place = 0
        if self.custom:
            self._put(item)
            return 0
        if self.returned is None:
            self.returned = []
        while place < len(self.returned) and self.returned[place] < number:
            place += 1
        self.returned.insert(place, number)
        self.items.insert(place, item)
        return 0

    cdef object first_item(self):
        return self._peek() if self.custom else self.items[0]

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
        return self._qsize() if self.custom else len(self.items)

    def __len__(self):
        return self.held()

    def __bool__(self):
        """A queue is true, empty or not."""
        return True

    def empty(self):
        """Whether `get` would have to wait."""
        if self.held() == 0:
            give_way(True)
        return self.held() == 0

    def full(self):
        """Whether `put` would have to wait."""
        return self.limit >= 0 and self.held() >= self.limit

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
        if self.limit < 0 or self.held() < self.limit:
            self.insert(item)
            self.added()
            self.offer()
            return
        if self.limit == 0 and self.getting.head != NULL:
            waiter = first(&self.getting)
            if waiter is not None:
                self.added()
                self.hand(waiter, item)
                self.handed_over()
                return
        if not block:
            raise Full
        if made_hub():
            self.put(item, block, timeout)
            return
        waiter = new_waiter((item,))
        wait = seconds(timeout)
        if self.limit == 0 and self.peeking.head != NULL:
            wake_all(&self.peeking, PEEKED)
        if not park(&self.putting, waiter, self, wait):
            raise timeout_error(timeout, Full)
        if waiter.value is CLOSED:
            raise ShutDown("this queue was shut down")
        if type(waiter.value) is Failure:
            raise (<Failure>waiter.value).error

    def put_nowait(self, item):
        """Put `item`, or raise Full if there is no room now."""
        self.put(item, False)

    cdef int handed_over(self) except -1:
        """Called by a Channel's `put` after it has given its item to a waiting getter."""
        return 0

    cdef int offer(self) except -1:
        """Give the next item to a waiting getter: an item has been put."""
        cdef Waiter waiter
        if self.peeking.head != NULL:
            wake_all(&self.peeking, PEEKED)
        if self.getting.head != NULL:
            waiter = first(&self.getting)
            if waiter is not None:
                if not self.custom:
                    self.hand(waiter, self.take())
                    return 0
                try:
                    item = self.take()
                except Exception as error:
                    waiter.resume(failure(error))
                else:
                    self.hand(waiter, item)
        return 0

    cdef int hand(self, Waiter getter, object item) except -1:
        cdef Handed handed = Handed.__new__(Handed)
        self.handed += 1
        handed.item = item
        handed.number = self.handed
        getter.resume(handed)
        return 0

    cdef int admit_putters(self) except -1:
        """Take the items of waiting putters, as far as there is room."""
        cdef Waiter waiter
        while self.putting.head != NULL and (self.limit < 0 or self.held() < self.limit):
            waiter = first(&self.putting)
            if waiter is None:
                return 0
            item = (<tuple>waiter.value)[0]
            try:
                self.insert(item)
            except Exception as error:
                waiter.resume(failure(error))
                continue
            self.added()
            waiter.resume(None)
            self.offer()
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
        if self.held() > 0:
            item = self.take()
            if self.putting.head != NULL:
                self.admit_putters()
            return item
        if self.limit == 0 and self.putting.head != NULL:
            waiter = first(&self.putting)
            if waiter is not None:
                item = (<tuple>waiter.value)[0]
                self.added()
                waiter.resume(None)
                return item
        if self.closed:
            self.check_open()
        if not block:
            give_way(True)
            if self.held() > 0 or self.closed or self.putting.head != NULL:
                return self.get(False)
            raise Empty
        if made_hub():
            return self.get(block, timeout)
        waiter = new_waiter(None)
        wait = seconds(timeout)
        try:
            if not park(&self.getting, waiter, self, wait):
                raise timeout_error(timeout, Empty)
        except BaseException:
            if waiter.lost and type(waiter.value) is Handed:
                self.restore(<Handed>waiter.value)
            raise
        if type(waiter.value) is not Handed:
            raise ShutDown("this queue was shut down") if waiter.value is CLOSED else (<Failure>waiter.value).error
        return (<Handed>waiter.value).item

    def get_nowait(self):
        """Take the next item, or raise Empty if there is none now."""
        return self.get(False)

    cdef int restore(self, Handed handed) except -1:
        """Give `handed`, whose getter was killed after `hand`, to the next getter, or put it back."""
        cdef Waiter waiter
        if self.getting.head != NULL:
            waiter = first(&self.getting)
            if waiter is not None:
                waiter.resume(handed)
                return 0
        self.put_back(handed.item, handed.number)
        if self.peeking.head != NULL:
            wake_all(&self.peeking, PEEKED)
        return 0

    def peek(self, block=True, timeout=None):
        """The next item, as `get`, without taking it."""
        cdef Waiter waiter
        cdef double wait = seconds(timeout)
        made_hub()
        if self.held() == 0 and block and wait >= 0.0:
            wait += current_hub().backend.time()
        while self.held() == 0:
            if self.limit == 0 and self.putting.head != NULL:
                return (<tuple>(<Waiter>self.putting.head).value)[0]
            self.check_open()
            if not block:
                raise Empty
            waiter = new_waiter(None)
            if not park(&self.peeking, waiter, self,
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
        return type(self)(self.maxsize, self.items)

    def statistics(self):
        """{"items", "getters": greenlets and threads waiting in get, "putters": in put}."""
        return {"items": self.held(), "getters": self.getting.count, "putters": self.putting.count}

    def __repr__(self):
        limit = "" if self.limit < 0 else f" maxsize={self.limit}"
        return f"<{type(self).__name__} at {id(self):#x} items={self.held()}{limit}{self.waiting()}>"

    __str__ = __repr__

    cdef str waiting(self):
        text = ""
        if self.getting.count:
            text += f" getters={self.getting.count}"
        if self.putting.count:
            text += f" putters={self.putting.count}"
        return text

    __class_getitem__ = classmethod(GenericAlias)


cdef class Queue(SimpleQueue):
    """Queue(maxsize=None, items=None, unfinished_tasks=None): a SimpleQueue that counts unfinished items.

    queue.Queue's contract: `task_done` and `join`, and `shutdown`.  `unfinished_tasks` is the count to begin with
    (None or 0: how many `items` there are).
    """

    cdef readonly Py_ssize_t unfinished_tasks
    cdef WaitList joiners

    def __init__(self, maxsize=None, items=None, unfinished_tasks=None):
        SimpleQueue.__init__(self, maxsize, items)
        if unfinished_tasks:
            self.unfinished_tasks = unfinished_tasks
        elif items is not None:
            self.unfinished_tasks = self.held()

    cdef int added(self) except -1:
        self.unfinished_tasks += 1
        return 0

    def task_done(self):
        """Count an item that was taken as done.  ValueError if this is called more often than items were put."""
        if self.unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self.unfinished_tasks -= 1
        if self.unfinished_tasks == 0:
            wake_all(&self.joiners, None)

    def join(self, timeout=None):
        """Wait until every item is done, up to `timeout` seconds (None: for ever); returns whether they are."""
        made_hub()
        if self.unfinished_tasks > 0:
            if not park(&self.joiners, new_waiter(None), self, seconds(timeout)) and self.unfinished_tasks > 0:
                time_is_over(timeout)
        return self.unfinished_tasks == 0

    def shutdown(self, immediate=False):
        """Have `put` raise ShutDown from now on, and `get` once the queue is empty (queue.Queue.shutdown).

        With `immediate`, drop the items in the queue; they count as done.
        """
        self.closed = True
        if immediate:
            while self.held() > 0:
                self.take()
                if self.unfinished_tasks > 0:
                    self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                wake_all(&self.joiners, None)
        wake_all(&self.putting, CLOSED)
        if self.held() == 0:
            wake_all(&self.getting, CLOSED)
            wake_all(&self.peeking, PEEKED)

    def copy(self):
        """A new queue of the same kind with the same items and as many unfinished ones."""
        return type(self)(self.maxsize, self.items, self.unfinished_tasks)


JoinableQueue = Queue


cdef class LifoQueue(Queue):
    """A Queue that gives the last item put first."""

    def _create_queue(self, items=()):
        return list(items)

    def _peek(self):
        """Return the next item; there is one."""
        return self.items[-1]

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        return self.insert(item)

    cdef object first_item(self):
        return self._peek()


cdef class PriorityQueue(Queue):
    """A Queue that gives the smallest item first."""

    def _create_queue(self, items=()):
        heap = list(items)
        heapify(heap)
        return heap

    def _put(self, item):
        """Keep `item`; there is room."""
        heappush(self.items, item)

    def _get(self):
        """Take the next item; there is one."""
        return heappop(self.items)

    cdef int insert(self, object item) except -1:
        if self.custom:
            self._put(item)
        else:
            heappush(self.items, item)
        return 0

    cdef int put_back(self, object item, Py_ssize_t number) except -1:
        return self.insert(item)

    cdef object take(self):
        return self._get() if self.custom else heappop(self.items)


cdef class Channel(SimpleQueue):
    """Channel(): a queue that holds nothing: `put` waits until a `get` takes the item, and the other way round."""

    def __init__(self, maxsize=1):
        if maxsize != 1:
            raise ValueError("a Channel holds nothing: it has no maxsize")
        SimpleQueue.__init__(self)

    cdef int set_limit(self, object maxsize) except -1:
        self.limit = 0
        return 0

    cdef int handed_over(self) except -1:
        # The getter goes on before the putter does.
        return let_others_run()

    @property
    def getters(self):
        """The greenlets that wait in `get`, in their order; None for a thread without a hub."""
        return waiting_in(&self.getting)

    @property
    def putters(self):
        """The greenlets that wait in `put`, in their order; None for a thread without a hub."""
        return waiting_in(&self.putting)

    @property
    def balance(self):
        """How many putters wait, minus how many getters."""
        return self.putting.count - self.getting.count

    def full(self):
        """True: it holds nothing."""
        return True

    def empty(self):
        """True: it holds nothing."""
        return True


cdef frozenset OURS = frozenset((SimpleQueue, Queue, LifoQueue, PriorityQueue, Channel))
