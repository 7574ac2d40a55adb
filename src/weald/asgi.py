"""The ASGI server by the names that its users know; weald.http holds what they stand for.

    ASGIServer(":8000", app).serve_forever()

Called by: users, weald.serve.
"""

from weald.http.asgi_server import ASGIServer
from weald.http.interface import interface_of
from weald.http.lifespan import Lifespans, StartupError

__all__ = ["ASGIServer", "Lifespans", "StartupError", "interface_of"]
