"""`weald serve MODULE:APP`: a WSGI or ASGI application on several processes, for production.

`command` is the command line, `config` the options.  `supervisor` is the parent process, which binds, forks, reloads
and stops; `upgrade` starts another program in its place.  `worker` is a child, which loads the application and serves
with servers made by `wsgi` or `asgi`; `threads` runs WSGI applications in native threads, `static` serves files.
`listeners`, `fair` and `tls` are for connections, `process` for user, cores and standard streams, `numbers` for numbers
in options, `changes` for `--reload`, `systemd` for socket activation and notification.  `errorlog`, `accesslog`,
`syslog` and `metrics` are for operators.

Called by: command.py, users.
"""

from weald.serve.config import Config
from weald.serve.errors import ConfigError
from weald.serve.supervisor import run

__all__ = ["Config", "ConfigError", "run"]
