"""Starlette, FastAPI, Django, Litestar and Quart under `weald serve`, with httpx, curl and `websockets` as clients.

Each application answers the same: /hello, /upload (how many bytes), /stream (in pieces), /blocking (calls blocking code
in a coroutine) and the WebSocket /socket.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import httpx
import pytest
from conftest import require_program
from helpers import PATIENCE, wait_until
from serving import serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

STARLETTE = '''
import asyncio, contextlib, time
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

async def hello(request):
    task = BackgroundTask(asyncio.sleep, 0.01)
    return PlainTextResponse(f"{request.state.greeting} {request.query_params['name']}", background=task)

async def upload(request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return PlainTextResponse(str(size))

async def numbers():
    for number in range(5):
        await asyncio.sleep(0)
        yield f"{number}\\n"

async def stream(request):
    return StreamingResponse(numbers(), media_type="text/plain")

async def blocking(request):
    time.sleep(0.01)
    return PlainTextResponse("done")

async def socket(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "end":
            await websocket.close(4000, "as you wish")
            break
        await websocket.send_text(text.upper())

class Plain(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["X-Seen"] = "yes"
        return response

@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}

routes = [Route("/hello", hello), Route("/upload", upload, methods=["POST"]), Route("/stream", stream)]
routes += [Route("/blocking", blocking), WebSocketRoute("/socket", socket)]
app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Plain)])
'''

FASTAPI = '''
import asyncio, contextlib, time
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse

greetings = []

@contextlib.asynccontextmanager
async def lifespan(app):
    greetings.append("hello")
    yield
    greetings.clear()

app = FastAPI(lifespan=lifespan)

def greeting():  # in a thread of the pool, as FastAPI runs what is no coroutine
    return greetings[0]

@app.get("/hello", response_class=PlainTextResponse)
def hello(name: str, word: str = Depends(greeting)):
    return f"{word} {name}"

@app.post("/upload", response_class=PlainTextResponse)
async def upload(request: Request):
    return str(len(await request.body()))

@app.get("/stream")
async def stream():
    async def numbers():
        for number in range(5):
            await asyncio.sleep(0)
            yield f"{number}\\n"
    return StreamingResponse(numbers())

@app.get("/blocking", response_class=PlainTextResponse)
async def blocking():
    time.sleep(0.01)
    return "done"

@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    while (text := await websocket.receive_text()) != "end":
        await websocket.send_text(text.upper())
    await websocket.close(4000, "as you wish")
'''

DJANGO = '''
import asyncio, time
from django.conf import settings
settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

def hello(request):  # in a thread
    return HttpResponse(f"hello {request.GET['name']}")

async def upload(request):
    return HttpResponse(str(len(request.body)))

async def stream(request):
    async def numbers():
        for number in range(5):
            await asyncio.sleep(0)
            yield f"{number}\\n"
    return StreamingHttpResponse(numbers())

async def blocking(request):
    time.sleep(0.01)
    return HttpResponse("done")

urlpatterns = [path(name, globals()[name]) for name in ("hello", "upload", "stream", "blocking")]
django = get_asgi_application()

async def app(scope, receive, send):  # Django itself has no WebSockets
    if scope["type"] != "websocket":
        return await django(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (text := (await receive())["text"]) != "end":
        await send({"type": "websocket.send", "text": text.upper()})
    await send({"type": "websocket.close", "code": 4000, "reason": "as you wish"})
'''

LITESTAR = '''
import asyncio, time
from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.response import Stream

@get("/hello", media_type=MediaType.TEXT, sync_to_thread=True)
def hello(name: str) -> str:
    return f"hello {name}"

@post("/upload", media_type=MediaType.TEXT, status_code=200, request_max_body_size=None)
async def upload(request: Request) -> str:
    return str(len(await request.body()))

@get("/stream")
async def stream() -> Stream:
    async def numbers():
        for number in range(5):
            await asyncio.sleep(0)
            yield f"{number}\\n"
    return Stream(numbers())

@get("/blocking", media_type=MediaType.TEXT)
async def blocking() -> str:
    time.sleep(0.01)
    return "done"

@websocket("/socket")
async def sock(socket: WebSocket) -> None:
    await socket.accept()
    while (text := await socket.receive_text()) != "end":
        await socket.send_text(text.upper())
    await socket.close(4000, "as you wish")

app = Litestar([hello, upload, stream, blocking, sock])
'''

QUART = '''
import asyncio, time
from quart import Quart, request, websocket

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = None

@app.route("/hello")
def hello():  # in a thread
    return f"hello {request.args['name']}"

@app.route("/upload", methods=["POST"])
async def upload():
    size = 0
    async for piece in request.body:
        size += len(piece)
    return str(size)

@app.route("/stream")
async def stream():
    async def numbers():
        for number in range(5):
            await asyncio.sleep(0)
            yield f"{number}\\n"
    return numbers()

@app.route("/blocking")
async def blocking():
    time.sleep(0.01)
    return "done"

@app.websocket("/socket")
async def socket():
    while (text := await websocket.receive()) != "end":
        await websocket.send(text.upper())
    await websocket.close(4000, "as you wish")
'''

APPS = {"starlette": STARLETTE, "fastapi": FASTAPI, "django": DJANGO, "litestar": LITESTAR, "quart": QUART}


@pytest.fixture(params=APPS, scope="module")
def served(request, tmp_path_factory):
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not there for this Python")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "site_app.py").write_text(APPS[request.param])
    with serving(folder, "--workers", "1") as found:
        found.kind = request.param
        yield found
    assert not [line for line in found.lines if "Traceback" in line or "never awaited" in line], found.lines


def test_hello(served):
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=PATIENCE) as client:
        for _ in range(3):
            response = client.get("/hello", params={"name": "ä b"})
            assert (response.status_code, response.text) == (200, "hello ä b")
        assert response.headers.get("x-seen") == ("yes" if served.kind == "starlette" else None)
        assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_curl(served, version):
    curl = [require_program("curl"), "-sS", "--max-time", "100", version, f"http://127.0.0.1:{served.port}/hello?name=x"]
    assert subprocess.run(curl, capture_output=True, text=True, timeout=PATIENCE).stdout == "hello x"


@pytest.mark.parametrize("chunked", [False, True])
def test_upload(served, chunked):
    data = bytes(3_000_000)

    def pieces():
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    url = f"http://127.0.0.1:{served.port}/upload"
    response = httpx.post(url, content=pieces() if chunked else data, timeout=PATIENCE)
    assert (response.status_code, response.text) == (200, "3000000")


def test_stream(served):
    with httpx.stream("GET", f"http://127.0.0.1:{served.port}/stream", timeout=PATIENCE) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert "".join(response.iter_text()) == "0\n1\n2\n3\n4\n"


def test_blocking(served):
    assert httpx.get(f"http://127.0.0.1:{served.port}/blocking", timeout=PATIENCE).text == "done"


def test_websocket(served):
    with connect(f"ws://127.0.0.1:{served.port}/socket", open_timeout=PATIENCE) as client:
        for text in ("hello", "x" * 50_000):
            client.send(text)
            assert client.recv(timeout=PATIENCE) == text.upper()
        client.send("end")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you wish")


BLOCKING = '''
import os
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # weald makes it safe: who waits for the database stalls only itself
import psycopg2
from django.conf import settings
database = dict(ENGINE="django.db.backends.postgresql", HOST="127.0.0.1", PORT={port}, USER="postgres", NAME="postgres")
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", DATABASES=dict(default=database))
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path

async def orm(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(1)")
    return HttpResponse("orm")

async def driver(request):
    own = psycopg2.connect(host="127.0.0.1", port={port}, user="postgres", dbname="postgres")
    with own.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(1)")
    own.close()
    return HttpResponse("driver")

async def hello(request):
    return HttpResponse("hello")

urlpatterns = [path(name, globals()[name]) for name in ("orm", "driver", "hello")]
app = get_asgi_application()
'''


def test_django_and_psycopg2_block_in_coroutines_and_stall_nobody(tmp_path, postgresql):
    """Ten requests wait for a lock in the database; the single worker answers others meanwhile."""
    import psycopg

    pytest.importorskip("django")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    (tmp_path / "site_app.py").write_text(BLOCKING.format(port=postgresql))
    address = f"host=127.0.0.1 port={postgresql} user=postgres dbname=postgres"
    with serving(tmp_path, "--workers", "1") as served, psycopg.connect(address, autocommit=True) as owner:
        base = f"http://127.0.0.1:{served.port}"
        owner.execute("SELECT pg_advisory_lock(1)")
        with ThreadPoolExecutor(10) as pool:
            asked = [pool.submit(httpx.get, f"{base}/{name}", timeout=PATIENCE) for name in ("orm", "driver") * 5]
            wait_until(lambda: owner.execute(waiting).fetchone() == (10,))
            assert httpx.get(f"{base}/hello", timeout=PATIENCE).text == "hello"
            owner.execute("SELECT pg_advisory_unlock(1)")
            assert [answer.result(PATIENCE).text for answer in asked] == ["orm", "driver"] * 5
