"""gevent._socket3: the socket class, which is in weald.socket."""

from weald.socket import *
from weald.socket import __dns__, __extensions__, __implements__, __imports__, socket
from weald.socket import socket as _wrefsocket
