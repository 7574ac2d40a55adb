"""A program of test_closings.py: waiting calls whose descriptor is closed, shut down or replaced.

    closings.py plain|patched KIND

Prints a line of JSON: the outcome of each (action, limit) of that kind, where `limit` is the call's timeout.
"""

import errno
import json
import os
import select
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from typing import Any

LIMIT = 0.3
FUTEX = {"202", "98"}  # its numbers on x86_64 and aarch64: a thread that waits for the interpreter's lock


def outcome(function):
    try:
        value = function()
    except OSError as error:
        # Whether unread data or the missing peer is reported as the reason depends on the timing.
        reset = {errno.ECONNRESET, errno.EPIPE}
        number = error.errno
        return "reset" if number in reset else f"{type(error).__name__} {errno.errorcode.get(number or 0)}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return repr(value)


def fill(write, size):
    try:
        while True:
            write(b"z" * size)
    except BlockingIOError:
        pass


class Pair:
    """A wait for `thing`, whose other side is `peer`: `wake` makes an event there, `end` closes it."""

    actions: tuple[str, ...] = (
        "close",
        "os_close",
        "detach",
        "shutdown_read",
        "shutdown_write",
        "shutdown_both",
        "dup2",
    )
    limits: tuple[float | None, ...] = (LIMIT, None)

    def __init__(self):

        self.thing, self.peer = socket.socketpair()

    def wait(self, limit):
        raise NotImplementedError

    def number(self):
        return self.thing.fileno()  # type: ignore[no-any-return]

    def close(self):
        self.thing.close()

    def os_close(self):
        os.close(self.number())

    def detach(self):
        self.given = self.thing.detach()

    def shutdown_read(self):
        self.thing.shutdown(socket.SHUT_RD)

    def shutdown_write(self):
        self.thing.shutdown(socket.SHUT_WR)

    def shutdown_both(self):
        self.thing.shutdown(socket.SHUT_RDWR)

    def dup2(self):
        os.dup2(idle.fileno(), self.number())

    def wake(self):
        self.peer.send(b"x")

    def end(self):
        self.peer.close()


class Select(Pair):
    def wait(self, limit):
        return [len(files) for files in select.select([self.thing], [], [], limit)]


class SelectWrite(Pair):
    def __init__(self):
        super().__init__()
        self.thing.setblocking(False)
        fill(self.thing.send, 65536)
        fill(self.thing.send, 1)

    def wake(self):
        self.peer.recv(1_000_000)

    def wait(self, limit):
        return [len(files) for files in select.select([], [self.thing], [], limit)]


class SelectExceptional(Select):
    actions = ("shutdown_read", "shutdown_both")
    limits = (LIMIT,)

    def wait(self, limit):
        return [len(files) for files in select.select([], [], [self.thing], limit)]


class Poll(Pair):
    def wait(self, limit):
        poll = select.poll()
        poll.register(self.thing, select.POLLIN)
        return [events for _, events in poll.poll(None if limit is None else limit * 1000)]


class Epoll(Pair):
    def wait(self, limit):
        with select.epoll() as poll:
            poll.register(self.thing, select.EPOLLIN)
            return [events for _, events in poll.poll(limit)]


class EpollObject(Pair):
    actions = ("close", "os_close", "dup2")

    def __init__(self):
        super().__init__()
        self.other, self.thing = self.thing, select.epoll()
        self.thing.register(self.other, select.EPOLLIN)

    def wait(self, limit):
        return self.thing.poll(limit)


class Selector(Pair):
    kind: Any = selectors.EpollSelector

    def wait(self, limit):
        with self.kind() as selector:
            selector.register(self.thing, selectors.EVENT_READ)
            return [events for _, events in selector.select(limit)]


class PollSelector(Selector):
    kind = selectors.PollSelector


class SelectSelector(Selector):
    kind = selectors.SelectSelector


class SelectorObject(Pair):
    actions = ("close",)
    limits = (LIMIT,)
    kind: Any = selectors.EpollSelector

    def __init__(self):
        super().__init__()
        self.other, self.thing = self.thing, self.kind()
        self.thing.register(self.other, selectors.EVENT_READ)

    def wait(self, limit):
        return self.thing.select(limit)


class PollSelectorObject(SelectorObject):
    kind = selectors.PollSelector


class SelectSelectorObject(SelectorObject):
    kind = selectors.SelectSelector


class Recv(Pair):
    def call(self):
        return self.thing.recv(10)

    def wait(self, limit):
        self.thing.settimeout(limit)
        return self.call()


class RecvInto(Recv):
    def call(self):
        return self.thing.recv_into(bytearray(10))


class RecvFrom(Recv):
    def call(self):
        return self.thing.recvfrom(10)[0]


class RecvMsg(Recv):
    def call(self):
        return self.thing.recvmsg(10)[0]


class TcpRecv(Recv):
    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.thing = socket.create_connection(listener.getsockname())
            self.peer = listener.accept()[0]


class UdpRecv(Recv):
    def __init__(self):
        self.thing, self.peer = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
        self.thing.bind(("127.0.0.1", 0))
        self.peer.bind(("127.0.0.1", 0))
        self.peer.connect(self.thing.getsockname())
        self.thing.connect(self.peer.getsockname())


class UdpRecvFrom(UdpRecv):
    call = RecvFrom.call


class UdpRecvMsg(UdpRecv):
    call = RecvMsg.call


class File(Recv):
    def __init__(self):
        super().__init__()
        self.file = self.thing.makefile("rb")

    def call(self):
        return self.file.readline()


class Sendall(Recv):
    def wake(self):
        pass

    def call(self):
        return self.thing.sendall(bytes(10_000_000))


class TcpSendall(TcpRecv):
    wake, call = Sendall.wake, Sendall.call


class Send(Sendall):
    def __init__(self):
        super().__init__()
        self.thing.setblocking(False)
        fill(self.thing.send, 65536)
        fill(self.thing.send, 1)

    def call(self):
        return self.thing.send(b"x")


class Sendmsg(Send):
    def call(self):
        return self.thing.sendmsg([b"x"])


class Accept(Recv):
    def __init__(self):
        self.thing = socket.create_server(("127.0.0.1", 0))
        self.address = self.thing.getsockname()
        self.peer = socket.socket()

    def call(self):
        return type(self.thing.accept()[0]).__name__

    def wake(self):
        self.peer.settimeout(LIMIT)
        self.peer.connect(self.address)


class UnixAccept(Accept):
    def __init__(self):
        self.thing, self.peer = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.thing.bind(f"\0closings {os.getpid()} {self.thing.fileno()}")
        self.thing.listen()
        self.address = self.thing.getsockname()


class Connect(Sendall):
    def __init__(self):
        self.peer = socket.socket()
        self.peer.bind(("127.0.0.1", 0))
        self.peer.listen(0)
        self.others = [socket.socket() for _ in range(3)]
        for other in self.others:  # there is no room for the third, nor for `thing`
            other.setblocking(False)
            other.connect_ex(self.peer.getsockname())
        select.select([], self.others, [])  # one is in: the system has dealt with the others' packets, too
        self.thing = socket.socket()

    def call(self):
        return self.thing.connect(self.peer.getsockname())

    def end(self):
        for other in self.others:
            other.close()
        self.peer.close()


class PipeRead(Pair):
    actions = ("os_close", "dup2")
    limits = (None,)

    def __init__(self):
        self.near, self.far = os.pipe()

    def number(self):
        return self.near

    def wait(self, limit):
        return os.read(self.near, 10)

    def wake(self):
        os.write(self.far, b"x")

    def end(self):
        os.close(self.far)


class PipeWrite(PipeRead):
    def __init__(self):
        self.far, self.near = os.pipe()
        os.set_blocking(self.near, False)
        fill(lambda data: os.write(self.near, data), 4096)
        os.set_blocking(self.near, True)

    def wait(self, limit):
        return os.write(self.near, b"x")

    def wake(self):
        os.read(self.far, 65536)


class PipeFile(PipeRead):
    def __init__(self):
        super().__init__()
        self.file = os.fdopen(self.near, "r")

    def wait(self, limit):
        return self.file.readline()


class Child(PipeRead):
    def __init__(self):
        self.child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.near = self.child.stdout.fileno()

    def wait(self, limit):
        return self.child.stdout.readline()

    def wake(self):
        self.child.stdin.write(b"x\n")
        self.child.stdin.flush()

    def end(self):
        self.child.stdin.close()


class SslRecv(Recv):
    def __init__(self):
        near, far = socket.socketpair()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(sys.argv[3], sys.argv[4])
        made = []
        thread = threading.Thread(target=lambda: made.append(server.wrap_socket(far, server_side=True)))
        thread.start()
        self.thing = anybody().wrap_socket(near)
        thread.join()
        self.peer = made[0]


class SslSend(SslRecv):
    wake, call = Sendall.wake, Sendall.call


class SslHandshake(Recv):
    def __init__(self):
        super().__init__()
        self.thing = anybody().wrap_socket(self.thing, do_handshake_on_connect=False)

    def wake(self):
        pass

    def call(self):
        return self.thing.do_handshake()


def anybody():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# Calls that only watch descriptors: the system goes on with the number, whatever file it is.
LOOKING = {"Epoll", "Poll", "PollSelector", "Select", "SelectExceptional", "SelectSelector", "SelectWrite", "Selector"}

KINDS = {
    name: kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Pair) and kind is not Pair
}


class Row(threading.Thread):
    """One call, and its outcome."""

    def __init__(self, kind, action, limit):
        super().__init__(daemon=True)
        self.what, self.action, self.limit = kind(), action, limit
        self.result = "waits"

    def run(self):
        self.result = outcome(lambda: self.what.wait(self.limit))

    def begin(self, patched):
        """Start it, and return when it waits."""
        self.start()
        self.settle(patched)

    def settle(self, patched):
        """Return when it waits, or has ended: until then a thread that was woken has not yet seen why."""
        while not patched and self.is_alive():
            time.sleep(0.001)
            try:
                calls = {open(f"/proc/self/task/{self.native_id}/syscall").read().split()[0] for _ in range(3)}
            except (FileNotFoundError, ProcessLookupError):
                continue  # it is about to end
            if not calls & {*FUTEX, "running"}:
                return
        if patched:
            weald.testing.blocked()


def main():
    silent = {"dup2", "close", "os_close"} if kind in ("Epoll", "Selector") else {"dup2"} if kind in LOOKING else set()
    rows = [
        Row(KINDS[kind], action, limit)
        for action in KINDS[kind].actions
        for limit in KINDS[kind].limits
        if limit is not None or action not in silent  # would look for ever for what is gone
    ]
    for row in rows:
        row.begin(mode == "patched")
        assert row.result == "waits", (row.action, row.limit, row.result)
        getattr(row.what, row.action)()
        row.settle(mode == "patched")
    for row in rows:
        if row.limit is None:
            outcome(row.what.wake)
            row.settle(mode == "patched")
            outcome(row.what.end)
    deadline = time.monotonic() + 100
    for row in rows:
        # A plain thread may wait for what no longer exists.
        never = row.action == "dup2" and row.limit is None and kind not in LOOKING
        row.join(LIMIT if never else max(deadline - time.monotonic(), 0))
    print(json.dumps([(row.action, row.limit, row.result) for row in rows]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    mode, kind = sys.argv[1:3]
    if mode == "patched":
        import weald.monkey
        import weald.testing

        weald.monkey.patch_all()
    idle, idle_peer = socket.socketpair()
    main()
