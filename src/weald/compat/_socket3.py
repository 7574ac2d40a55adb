"""gevent._socket3: the socket class, which is in weald.socket."""

from typing import TYPE_CHECKING

from weald._missing import gevent_names
from weald.socket import *
from weald.socket import __dns__, __extensions__, __implements__, __imports__, socket
from weald.socket import socket as _wrefsocket

if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald._socket3")
