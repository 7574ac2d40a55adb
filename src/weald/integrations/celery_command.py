"""`weald celery …`: Celery's command, whose worker runs on weald.

Called by: weald/__main__.py.  A module beside the package `celery`, because importing that one patches.
"""

import os
import sys
from typing import Any

__all__ = ["arrange", "run"]

POOL = "weald.integrations.celery:TaskPool"
# What `celery multi` does: with the command lines of workers, and without.
WITH_COMMANDS = ("start", "restart", "show", "get")
WITHOUT = ("stop", "stopwait", "stop_verify", "kill", "names", "expand", "help")


def run(arguments: list[str]) -> None:
    """Run `celery ARGUMENTS` in this process.  Does not return."""
    arguments, pool = arrange(arguments)
    sys.argv = ["celery", *arguments]
    try:
        if pool == "weald":
            os.environ["CELERY_CUSTOM_WORKER_POOL"] = POOL
            from weald.integrations.celery import TaskPool  # noqa: F401  patches
        elif pool == "gevent":
            from weald import install_as_gevent, monkey

            install_as_gevent()
            monkey.patch_all()
        from celery import maybe_patch_concurrency

        # What celery.__main__ does, with another name in the help.
        if "multi" not in arguments:
            maybe_patch_concurrency()
        from celery.bin import worker
        from celery.bin.celery import celery

        from weald.integrations.celery.announcement import announce
    except ImportError as error:
        sys.exit(f'weald celery needs Celery 5.5 or later ({error}): pip install "weald[celery]"')
    announce()
    detach = worker.detach

    def detach_as_this(path: str, argv: list[str], *args: Any, **options: Any) -> Any:
        # `--detach` runs `python -m celery ARGUMENTS`, to which gevent is another library, or none.
        return detach(path, ["-m", "weald", "celery", *argv[2:]], *args, **options)

    worker.detach = detach_as_this
    sys.exit(celery(prog_name="weald celery", auto_envvar_prefix="CELERY"))


def arrange(arguments: list[str]) -> tuple[list[str], str | None]:
    """`arguments` as Celery understands them best, and the pool they ask for: "weald" if a worker names none.

    Celery patches for gevent only if it finds `-P gevent` or `--pool gevent`; other spellings are turned into that.
    `multi` is told to start workers with `weald celery`, unless it is told another command.
    """
    if "multi" in arguments[:-1]:
        does = arguments[arguments.index("multi") + 1]
        if does in WITH_COMMANDS:
            end = arguments.index("--") if "--" in arguments else len(arguments)
            if not any(argument.startswith("--cmd") for argument in arguments[:end]):
                arguments = [*arguments[:end], "--cmd=-m weald celery worker --detach", *arguments[end:]]
        if does in WITH_COMMANDS or does in WITHOUT:
            return arguments, None
    if "worker" not in arguments:
        return arguments, None
    rest: list[str] = []
    pool: str | None = None
    remaining = iter(arguments)
    for argument in remaining:
        if argument in ("-P", "--pool"):
            pool = next(remaining, "")
        elif argument.startswith("--pool="):
            pool = argument.removeprefix("--pool=")
        elif argument.startswith("-P"):
            pool = argument[2:].removeprefix("=")
        else:
            rest.append(argument)
    if pool is None or pool == "weald":
        return [*rest, "-P", "custom"], "weald"
    return [*rest, "-P", pool], pool
