"""The command `weald`, also `python -m weald`: programs that run on weald.

Called by: people.  Each command imports what it needs when it is called, and patches before that if it has to.  The
commands of weald/compat are added at the end.
"""

from typing import Any

import click

from weald.compat import _commands


def _version() -> str:
    """weald's version, the event loop that new hubs get, and the interpreter, in one line."""
    import platform

    import greenlet

    from weald import __version__, get_hub

    return (
        f"weald {__version__} ({get_hub().loop.name}, greenlet {greenlet.__version__}, "
        f"{platform.python_implementation()} {platform.python_version()})"
    )


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(_version())
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version and the event loop, and end.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Run programs on weald: blocking-style networking on greenlets."""
    if context.invoked_subcommand is None:
        click.echo(f"{_version()}\n\n{context.get_help()}")


@main.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def celery(arguments: tuple[str, ...]) -> None:
    """Run Celery's command ARGUMENTS; its worker with weald's pool, unless -P names another.

    `weald celery -A proj worker -c 1000`
    """
    from weald.integrations.celery_command import run

    run(list(arguments))


@main.command()
@click.argument("application", metavar="MODULE:APP")
@click.option("-b", "--bind", "binds", multiple=True, help="HOST:PORT or unix:PATH; may come again  [127.0.0.1:8000]")
@click.option("-w", "--workers", type=click.IntRange(1), help="Processes.  [one per core]")
@click.option("--certfile", help="TLS certificate chain, PEM.")
@click.option("--keyfile", help="Its key, PEM.")
@click.option("--key-password-file", help="File whose first line is the key's password.")
@click.option(
    "--access-log", default="off", type=click.Choice(["common", "combined", "json", "off"]), show_default=True
)
@click.option("--access-log-file", default="-", show_default=True, help="- is standard output; SIGUSR1 reopens it.")
@click.option("--metrics", help="HOST:PORT to serve /metrics on, for Prometheus.")
@click.option("--graceful-timeout", default=30.0, show_default=True, help="Seconds for requests under way at a stop.")
@click.option("--boot-timeout", default=300.0, show_default=True, help="Seconds to load the application; 0: for ever.")
@click.option("--timeout", default=60.0, show_default=True, help="Kill a worker that is blocked for so many seconds.")
@click.option("--max-requests", default=0, help="Replace a worker that has served so many.")
@click.option("--max-requests-jitter", default=0, help="And up to so many more.")
@click.option("--max-memory", default=0, help="Replace a worker of more than so many MiB.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=NUMBER", help="Change one of weald.http.Limits.")
@click.option("--app-dir", "directory", default=".", help="Where the module is.  [here]")
@click.option("--http2/--no-http2", default=True, help="HTTP/2 for clients that ask for it (needs h2).  [yes]")
@click.option("--no-patch", is_flag=True, help="Leave the standard library as it is.")
@click.option("--check", is_flag=True, help="Load the application and the certificate, and end.")
def serve(application: str, check: bool, **options: Any) -> None:
    """Serve the WSGI application MODULE:APP on several processes.

    SIGHUP loads it anew and SIGTERM stops, both without failing a request.
    """
    from weald.serve import Config, ConfigError, run
    from weald.serve.config import parse_limits
    from weald.serve.supervisor import check as check_config

    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    chosen["patch"] = not chosen.pop("no_patch")
    chosen["max_memory"] <<= 20
    try:
        chosen["limits"] = parse_limits(chosen.pop("limits", ()))
        config = Config(application, **chosen)
        if check:
            check_config(config)
            click.echo(f"{application} can be served")
            return
        raise SystemExit(run(config))
    except (ConfigError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from None


for _command in _commands.ALL:
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="weald")
