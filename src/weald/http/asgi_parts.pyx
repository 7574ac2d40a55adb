# cython: nonecheck=True
"""Helpers of asgi.pyx, compiled: awaitables that are not coroutines, and fields in the form of scopes and events.

Called by: asgi.pyx, asgi_websocket.pyx.

Invariants:
- Everything that goes into a response's head is checked for control characters, so that it cannot form a second field.
- Names that were checked are remembered, in tables of limited size.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from weald.http.protocol cimport Request, split_field

import re
from collections.abc import Coroutine
from http import HTTPStatus

from weald.http.fields import field_name
from weald.http.protocol import TOKEN

cdef Py_ssize_t MOST_CACHED = 1024
cdef object is_name = re.compile(TOKEN + rb"+").fullmatch
cdef dict CAME_NAMES = {}  # names of requests' fields: in lower case; None for one that is not shown
STATUSES = {}
SENT_NAMES = {}


# -------------------------------------------------------------------- what is awaited


cdef class Result:
    """An awaitable that is done.  It has a coroutine's methods, so that it may be made a task."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.value is None:
            raise StopIteration
        raise StopIteration(self.value)

    def send(self, value):
        """As a coroutine's."""
        raise StopIteration(self.value)

    def throw(self, kind, value=None, traceback=None):
        """As a coroutine's."""
        raise kind if value is None else value

    def close(self):
        """As a coroutine's."""


cdef class Waiting:
    """An awaitable that waits for a Future, with a coroutine's methods."""

    def __await__(self):
        return self.future.__await__()

    cdef object iterator(self):
        if self.steps is None:
            self.steps = self.future.__await__()
        return self.steps

    def send(self, value):
        """As a coroutine's."""
        return self.iterator().send(value)

    def throw(self, *args):
        """As a coroutine's."""
        return self.iterator().throw(*args)

    def close(self):
        """As a coroutine's."""


Coroutine.register(Result)
Coroutine.register(Waiting)

DONE = Result.__new__(Result)


cdef Result result_of(object value):
    cdef Result made = Result.__new__(Result)
    made.value = value
    return made


async def _awaited(awaitable):
    return await awaitable


cdef object awaited(awaitable):
    """Return a coroutine that awaits an awaitable."""
    return _awaited(awaitable)


# -------------------------------------------------------------------- heads


cdef bytes line_of(status):
    """Return the status line's "200 OK" for a code.  Raises TypeError or ValueError."""
    if not isinstance(status, int):
        raise TypeError(f"a status must be a number, not {status!r}")
    if not 200 <= status <= 999:
        raise ValueError(f"a response's status must be from 200 on: {status}")
    code = int(status)
    try:
        reason = HTTPStatus(code).phrase
    except ValueError:
        reason = ""
    STATUSES[code] = line = f"{code} {reason}".encode()
    return line


cdef tuple known_name(name):
    """Return the name of a field that an application sends, and its number.  Raises TypeError or ValueError."""
    if not isinstance(name, bytes):
        raise TypeError(f"the name of a field must be bytes, not {name!r}")
    if not is_name(name):
        raise ValueError(f"not the name of a field: {name!r}")
    made = (name, field_name(name.decode("latin-1"))[1])
    if len(SENT_NAMES) < MOST_CACHED:
        SENT_NAMES[name] = made
    return made


cdef bytes checked(bytes name, value):
    """Return the value of a field.  Raises TypeError or ValueError."""
    cdef const unsigned char *text
    cdef Py_ssize_t i
    if not isinstance(value, bytes):
        if not isinstance(value, (bytearray, memoryview)):
            raise TypeError(f"the value of {name!r} must be bytes, not {value!r}")
        value = bytes(value)
    text = <const unsigned char *>PyBytes_AS_STRING(value)
    for i in range(PyBytes_GET_SIZE(value)):
        if text[i] < 32 and text[i] != 9 or text[i] == 127:
            raise ValueError(f"a control character in the field {name!r}: {value!r}")
    return value


cdef object lowered(bytes name):
    """Return a request field's name in lower case; None for one that is not shown, as in a WSGI environment."""
    found = None if b"_" in name or name.lower() == b"proxy" else name.lower()
    if len(CAME_NAMES) < MOST_CACHED:
        CAME_NAMES[name] = found
    return found


cdef list fields_of(Request request):
    """Return the request's fields as a scope has them."""
    cdef list made = []
    cdef char *at
    cdef char *name_at
    cdef char *colon
    cdef char *value_at
    cdef char *end
    cdef bytes name
    cdef bint host = False
    if request.head is None:  # HTTP/2
        for name, value in request.given:
            low = lowered(name)
            if low is not None:
                made.append((low, value))
                host = host or low == b"host"
    else:
        at = PyBytes_AS_STRING(request.head) + request.first
        while at[0] != c"\r":
            name_at = at
            at = split_field(at, &colon, &value_at, &end)
            name = PyBytes_FromStringAndSize(name_at, colon - name_at)
            low = CAME_NAMES.get(name, name)
            if low is name:
                low = lowered(name)
            if low is not None:
                made.append((low, PyBytes_FromStringAndSize(value_at, end - value_at)))
        # RFC 9112 section 3.2.2: the authority of an absolute target counts, whatever Host says.
        host = request.line[len(request.method) + 1] == "/"
        if not host:
            made = [field for field in made if field[0] != b"host"]
    if not host and "HTTP_HOST" in request.fields:
        made.insert(0, (b"host", request.fields["HTTP_HOST"].encode("latin-1")))
    return made
