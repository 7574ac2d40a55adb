"""weald.disconnected: an application notices that its client has left, before it writes."""

import io
from contextlib import closing

import pytest
from helpers import PATIENCE, recorded_errors
from test_http_http2 import talking
from test_pywsgi import GET, LAST, Response, connect, one, serving

import weald
from weald.event import AsyncResult, Event

pytestmark = pytest.mark.usefixtures("io_loop")


def answer(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]


def test_a_client_that_stays_is_not_gone():
    seen = []

    def app(environ, start_response):
        gone = environ["weald.disconnected"]
        seen.extend((gone.is_set(), gone.wait(0.01)))
        return answer(environ, start_response)

    with serving(app) as server:
        assert one(server, LAST).body == b"done"
    assert seen == [False, False]


@pytest.mark.parametrize("more", [b"", GET], ids=["alone", "with a further request"])
def test_waiting_for_a_client_to_leave(more):
    started, outcome = Event(), AsyncResult()

    def app(environ, start_response):
        gone = environ["weald.disconnected"]
        if not started.is_set():  # otherwise it is the further request, for which the test does not wait
            before = gone.is_set()
            started.set()
            outcome.set((before, gone.wait(PATIENCE), gone.is_set()))
        return answer(environ, start_response)

    with serving(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(GET + more)
            assert started.wait(PATIENCE)
        assert outcome.get(timeout=PATIENCE) == (False, True, True)


def test_the_body_is_read_while_somebody_watches():
    """Waiting for the client's end does not consume the body, and a body does not count as the end."""

    def app(environ, start_response):
        watcher = weald.spawn(environ["weald.disconnected"].wait)
        body = environ["wsgi.input"].read()
        assert not watcher.ready()
        watcher.kill()
        start_response("200 OK", [])
        return [body]

    with serving(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        weald.sleep(0)
        sock.sendall(b"def")
        assert Response(file).body == b"abcdef"


def test_a_block_is_interrupted():
    started, outcome = Event(), AsyncResult()
    log = io.StringIO()

    def app(environ, start_response):
        try:
            with environ["weald.disconnected"].interrupt():
                started.set()
                weald.sleep(60)
        except OSError as error:
            outcome.set(error)
            raise
        return answer(environ, start_response)

    with recorded_errors() as errors, serving(app, error_log=log) as server:
        with closing(connect(server)) as sock:
            sock.sendall(GET)
            assert started.wait(PATIENCE)
        assert isinstance(outcome.get(timeout=PATIENCE), ConnectionResetError)
    assert not errors
    assert log.getvalue() == ""


def test_nothing_is_raised_behind_the_block():
    started, left, outcome = Event(), Event(), AsyncResult()

    def app(environ, start_response):
        try:
            with environ["weald.disconnected"].interrupt():
                weald.sleep(0)
            started.set()
            assert left.wait(PATIENCE)
            outcome.set(environ["weald.disconnected"].wait(PATIENCE))
        except BaseException as error:
            outcome.set_exception(error)
        return answer(environ, start_response)

    with serving(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(GET)
            assert started.wait(PATIENCE)
        left.set()
        assert outcome.get(timeout=PATIENCE) is True


def test_a_stream_of_http_2_that_is_reset():
    started, outcome = Event(), AsyncResult()

    def app(environ, start_response):
        gone = environ["weald.disconnected"]
        before = gone.is_set()
        started.set()
        outcome.set((before, gone.wait(PATIENCE)))
        return answer(environ, start_response)

    with talking(app) as client:
        stream = client.ask("/")
        assert started.wait(PATIENCE)
        client.h2.reset_stream(stream)
        client.flush()
        assert outcome.get(timeout=PATIENCE) == (False, True)


def test_it_stays_set_once_the_connection_is_closed():
    kept = []

    def app(environ, start_response):
        kept.append(environ["weald.disconnected"])
        return answer(environ, start_response)

    with serving(app) as server:
        one(server, LAST)
    assert kept[0].is_set()
    assert kept[0].wait(0)
