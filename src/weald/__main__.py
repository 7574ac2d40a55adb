"""The command `weald`, also `python -m weald`: programs that run on weald.

Called by: people.  Each command imports what it needs when it is called, and patches before that if it has to.  The
commands of weald/compat are added at the end.
"""

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


class _Commands(click.Group):
    """Imports `serve` only when it is called, because it needs more modules than the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted([*super().list_commands(ctx), "serve"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name == "serve":
            from weald.serve.command import serve

            return serve
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
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


for _command in _commands.ALL:
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="weald")
