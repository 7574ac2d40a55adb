"""`weald serve MODULE:APP`: a WSGI or ASGI application on several processes, for production.

`config` is what was asked for; `supervisor` the parent process, which binds, forks, reloads and stops; `worker` a
child, which loads the application and serves, with servers that `wsgi` or `asgi` make; `listeners`, `fair` and `tls`
how it is reached; `process` whose it is; `changes` what `--reload` looks at; `accesslog` and `metrics` are what
operators look at; `systemd` its part of socket activation and notification.  `command` is the command line.

Called by: command.py, users.
"""

from weald.serve.config import Config
from weald.serve.errors import ConfigError
from weald.serve.supervisor import run

__all__ = ["Config", "ConfigError", "run"]
