"""The command `weald`, also `python -m weald`: programs that run on weald.

Called by: people.  Each command imports what it needs when it is called, and patches before that if it has to.
"""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run programs on weald."""


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


if __name__ == "__main__":
    main(prog_name="weald")
