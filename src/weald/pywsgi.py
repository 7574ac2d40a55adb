"""The WSGI server's public names; the code is in weald.http.

Called by: users, weald.serve, weald.integrations.gunicorn.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.http.environ import Environ, SecureEnviron, WSGISecureEnviron
from weald.http.handler import WSGIHandler
from weald.http.logs import LoggingLogAdapter
from weald.http.server import WSGIServer

__all__ = ["Environ", "LoggingLogAdapter", "SecureEnviron", "WSGIHandler", "WSGIServer", "WSGISecureEnviron"]

if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
