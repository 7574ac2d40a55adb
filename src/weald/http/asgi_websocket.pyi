from weald.http.asgi import Call
from weald.http.websocket import Options

class WebSocketCall(Call):
    """One WebSocket; `options` are a websocket.Options."""

    def __init__(self, options: Options) -> None: ...
