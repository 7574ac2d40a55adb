"""The ASGI server's public names; the code is in weald.http.

    ASGIServer(":8000", app).serve_forever()

Called by: users, weald.serve.
"""

from weald.http.asgi_server import ASGIServer
from weald.http.interface import interface_of
from weald.http.lifespan import Lifespans, StartupError

__all__ = ["ASGIServer", "Lifespans", "StartupError", "interface_of"]
