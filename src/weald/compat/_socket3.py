"""gevent._socket3: the socket class, which is in weald.socket.

Called by: users, as gevent._socket3.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.socket import *
from weald.socket import __dns__, __extensions__, __implements__, __imports__, socket
from weald.socket import socket as _wrefsocket

if not TYPE_CHECKING:
    __getattr__ = more_names("weald._socket3")
