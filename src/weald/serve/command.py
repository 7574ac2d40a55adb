"""The command `weald serve`: its options in groups, from the command line, the environment and a file.

Called by: weald/__main__.py.

An option is, in this order: what the command line says, the environment (`WEALD_SERVE_TIMEOUT=10`), the configuration
file (`timeout = 10`), the default.  Names are the same everywhere.
"""

import os
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["serve"]

_F = TypeVar("_F", bound=Callable[..., Any])
PREFIX = "WEALD_SERVE"  # of the variables of the environment, in front of _
FILE = "weald.toml"  # its table [serve]
PROJECT_FILE = "pyproject.toml"  # its table [tool.weald.serve]
SIGNALS = [
    ("TERM, INT", "Stop; no request is lost.  A second INT: at once."),
    ("QUIT", "Stop at once."),
    ("HUP", "Load the application, the certificates and the hooks anew."),
    ("USR1", "Open the logs' files anew."),
    ("USR2", "Start the program anew beside this one, with its sockets; TERM to this one then ends the change."),
    ("WINCH", "Stop the workers, once that program is there; HUP starts them again."),
    ("TTIN, TTOU", "One worker more, one fewer."),
]


class _Option(click.Option):
    def __init__(self, *arguments: Any, group: str = "Other", **options: Any) -> None:
        self.group = group
        super().__init__(*arguments, **options)
        if self.envvar is None:  # click itself goes by the parameter's name, which may be another one
            long = next(spelling for spelling in self.opts if spelling.startswith("--"))
            self.envvar = PREFIX + long.replace("-", "_").upper()[1:]


class _Command(click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options' help, a section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue  # some versions of click have a row for it, without a text
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)
        with formatter.section("Signals to the parent process"):
            formatter.write_dl(SIGNALS)


def _read_file(context: click.Context, option: click.Parameter, path: str | None) -> None:
    """Take the defaults from the configuration file."""
    table: Any = None
    chosen = path
    try:
        if path is None:
            path = next((name for name in (FILE, PROJECT_FILE) if os.path.exists(name)), None)
        if path is not None:
            with open(path, "rb") as file:
                table = tomllib.load(file)
            for name in ("tool", "weald", "serve") if os.path.basename(path) == PROJECT_FILE else ("serve",):
                table = table.get(name) if isinstance(table, dict) else None
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
    if not isinstance(table, dict):
        if chosen is not None or table is not None:
            raise click.ClickException(f"{path} has no table [serve]")
        return
    names: dict[str, click.Parameter] = {}
    for parameter in context.command.params:
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            names[spelling.removeprefix("--").replace("-", "_")] = parameter
    defaults: dict[str, Any] = {}
    for key, value in table.items():
        found = names.get(key.replace("-", "_"))
        if found is None or not found.name or found is option:
            raise click.ClickException(f"{path}: there is no option {key!r}")
        if found.name == "limits" and isinstance(value, dict):
            value = [f"{limit}={number}" for limit, number in value.items()]
        if getattr(found, "multiple", False) and not isinstance(value, list):
            value = [value]
        if not _suits(found, value):
            raise click.ClickException(f"{path}: {key} cannot be {value!r}")
        defaults[found.name] = value
    context.default_map = {**(context.default_map or {}), **defaults}


def _suits(option: click.Parameter, value: Any) -> bool:
    """Return whether a value of the file is of a type that click turns into what `option` needs, or refuses."""
    values = value if getattr(option, "multiple", False) else [value]
    if getattr(option, "is_flag", False):
        return isinstance(value, bool | str)
    if isinstance(option.type, click.types.IntParamType) and isinstance(value, float):
        return False  # click would cut it
    return all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values)


def _option(group: str, *names: str, **options: Any) -> Callable[[_F], _F]:
    return click.option(*names, cls=_Option, group=group, **options)


@click.command(cls=_Command, context_settings={"auto_envvar_prefix": PREFIX, "help_option_names": ["-h", "--help"]})
@click.argument("application", metavar="[MODULE:APP]", required=False)
@_option(
    "General",
    "-c",
    "--config",
    is_eager=True,
    expose_value=False,
    callback=_read_file,
    metavar="FILE",
    help="TOML, options in the table [serve].  [weald.toml, or [tool.weald.serve] in pyproject.toml, if there is one]",
)
@_option(
    "General",
    "--interface",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "wsgi", "asgi"]),
    help="The application's; auto: ASGI if it is a coroutine function, or has an async def __call__.",
)
@_option(
    "General",
    "--lifespan",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "on", "off"]),
    help="Tell ASGI applications that the worker starts and ends; auto: those that take it.",
)
@_option(
    "General",
    "--mount",
    "mounts",
    multiple=True,
    metavar="/PREFIX=MODULE:APP",
    help="A further application, ASGI or WSGI, for the paths below a prefix; may come again.",
)
@_option("General", "--app-dir", "directory", default=".", help="Where the module is.  [here]")
@_option("General", "--no-patch", is_flag=True, help="Leave the standard library as it is.")
@_option(
    "General",
    "--hooks",
    metavar="MODULE",
    help="Its post_fork, worker_ready and worker_exit are called with the worker's number.",
)
@_option("General", "--reload", is_flag=True, help="Load the application anew when its files change: for development.")
@_option(
    "General",
    "--preload",
    is_flag=True,
    help="Load the application once, before the workers are forked: they share its memory; SIGHUP does not reload it.",
)
@_option("General", "--check", is_flag=True, help="Bind, load the application and the certificates, and end.")
@_option(
    "Addresses",
    "-b",
    "--bind",
    "binds",
    multiple=True,
    help="HOST:PORT, unix:PATH, unix:@NAME or fd://N; may come again  [127.0.0.1:8000]",
)
@_option("Addresses", "--backlog", default=2048, show_default=True, help="Connections that wait to be accepted.")
@_option("Addresses", "--socket-mode", default="666", show_default=True, help="Mode of Unix sockets, octal.")
@_option("Addresses", "--root-path", default="", help="Where the application is: SCRIPT_NAME.")
@_option(
    "Addresses",
    "--forwarded-allow-ips",
    metavar="LIST",
    help="Believe X-Forwarded-* and Forwarded of these: addresses, networks, 'unix' or '*', with commas.",
)
@_option(
    "Addresses",
    "--proxy-protocol",
    metavar="LIST",
    help="These begin each connection with a PROXY header, version 1 or 2; a list as the one above.",
)
@_option(
    "Addresses",
    "--static",
    "static",
    multiple=True,
    metavar="/PREFIX=DIR",
    help="Answer paths below the prefix with the files of a folder; may come again.",
)
@_option("Addresses", "--static-max-age", default=60, show_default=True, help="Seconds that clients may keep those.")
@_option(
    "Addresses",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A field for all responses that have none of that name; may come again.",
)
@_option("TLS", "--certfile", help="Certificate chain, PEM.")
@_option("TLS", "--keyfile", help="Its key, PEM.")
@_option("TLS", "--key-password-file", help="File whose first line is the key's password.")
@_option(
    "TLS",
    "--sni",
    "sni",
    multiple=True,
    metavar="NAME=CERTFILE[:KEYFILE]",
    help="Another certificate, for clients that ask for NAME (or *.NAME); may be repeated.",
)
@_option("TLS", "--client-ca", metavar="FILE", help="Ask for client certificates of these authorities, PEM.")
@_option("TLS", "--client-cert", default="required", show_default=True, type=click.Choice(["required", "optional"]))
@_option(
    "TLS", "--tls-min", default="1.2", show_default=True, type=click.Choice(["1.2", "1.3"]), help="Lowest version."
)
@_option("TLS", "--ciphers", help="OpenSSL's list, for TLS 1.2.")
@_option(
    "Processes",
    "-w",
    "--workers",
    type=click.IntRange(1),
    envvar=["WEALD_SERVE_WORKERS", "WEB_CONCURRENCY"],
    help="Processes.  [one per core, of those that the container may use]",
)
@_option(
    "Processes",
    "--threads",
    default=0,
    help="Run WSGI applications in so many threads of each worker: for calls that block in C.",
)
@_option("Processes", "--user", help="Name or number to become once the sockets are open.")
@_option("Processes", "--group", help="Name or number.  [the user's]")
@_option("Processes", "--umask", help="Octal.")
@_option("Processes", "--pid", "pid_file", metavar="FILE", help="Where to write the parent's process id.")
@_option("Processes", "--graceful-timeout", default=30.0, show_default=True, help="Seconds for requests at a stop.")
@_option(
    "Processes",
    "--boot-timeout",
    default=300.0,
    show_default=True,
    help="Seconds to load the application; 0: for ever.",
)
@_option(
    "Processes", "--timeout", default=60.0, show_default=True, help="End a worker that is blocked so long; 0: never."
)
@_option("Processes", "--max-requests", default=0, help="Replace a worker that has served so many.")
@_option("Processes", "--max-requests-jitter", default=0, help="And up to so many more.")
@_option("Processes", "--max-memory", default=0, help="Replace a worker of more than so many MiB.")
@_option("Logs", "--error-log", default="-", show_default=True, help="File for standard error; SIGUSR1 reopens it.")
@_option("Logs", "--error-log-format", default="text", type=click.Choice(["text", "json"]), show_default=True)
@_option(
    "Logs",
    "--log-level",
    default="info",
    type=click.Choice(["info", "warning", "error"]),
    show_default=True,
    help="The least important lines in the error log.",
)
@_option(
    "Logs",
    "--access-log",
    default="off",
    metavar="FORMAT",
    show_default=True,
    help="common, combined, json, off, or text with %(h)s and the like.",
)
@_option("Logs", "--access-log-file", default="-", show_default=True, help="- is standard output; SIGUSR1 reopens it.")
@_option(
    "Logs",
    "--log-syslog",
    metavar="TO",
    help="unix:/dev/log or udp:HOST:514: where both logs go in place of standard error and output.",
)
@_option("Logs", "--log-syslog-facility", default="daemon", show_default=True, help="Its name.")
@_option("Logs", "--log-syslog-tag", default="weald", show_default=True, help="The program's name in syslog.")
@_option("Logs", "--metrics", help="HOST:PORT to serve /metrics on, for Prometheus.")
@_option(
    "Protocol", "--limit", "limits", multiple=True, metavar="NAME=NUMBER", help="One of docs/http.md; may come again."
)
@_option("Protocol", "--methods", metavar="LIST", help="The application gets no others: GET,HEAD,POST.  [all]")
@_option("Protocol", "--http2/--no-http2", default=True, help="HTTP/2 to who asks for it (needs h2).  [yes]")
def serve(application: str | None, check: bool, **options: Any) -> None:
    """Serve the WSGI or ASGI application MODULE:APP on several processes.

    SIGHUP reloads it and SIGTERM stops, both without failing a request.  Each option may be set by the environment
    (WEALD_SERVE_BIND) and in a file (bind = "...") as well.
    """
    from weald.serve import Config, ConfigError, run
    from weald.serve.config import parse_limits, parse_websocket_limits
    from weald.serve.supervisor import check as check_config

    if application is None:
        raise click.UsageError('which application?  MODULE:APP, or application = "MODULE:APP" in the file')
    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    chosen["patch"] = not chosen.pop("no_patch")
    chosen["max_memory"] <<= 20
    try:
        settings = chosen.pop("limits", ())
        chosen["limits"], chosen["websocket"] = parse_limits(settings), parse_websocket_limits(settings)
        config = Config(application, **chosen)
        if check:
            check_config(config)
            click.echo(f"{application} can be served")
            return
        raise SystemExit(run(config))
    except (ConfigError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None
