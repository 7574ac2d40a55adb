"""`python -m weald.monkey [--no-PART …] SCRIPT|-m MODULE ARGS…`: patch, then run the program as __main__.

Called by: people; weald.compat, which has `main` as a name of the package.

With `--doctor` the program is not patched before: what it imports before it patches itself is reported.
"""

import inspect
import os
import runpy
import sys

from weald import monkey

USAGE = "usage: python -m weald.monkey [--doctor] [--verbose] [--no-PART ...|--PART ...] SCRIPT|-m MODULE [ARGS ...]"

MODULES = [name.removeprefix("patch_") for name in monkey.__all__ if name.startswith("patch_")]


def main() -> None:
    """Patch as the options say and run the program."""
    args = sys.argv[1:]
    signature = inspect.signature(monkey.patch_all)
    parts = [name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    chosen: dict[str, bool] = {}
    as_module = verbose = examine = False
    while args and args[0].startswith("-"):
        option = args.pop(0)
        name = option.removeprefix("--no-").removeprefix("--")
        if option in ("-m", "--module"):
            as_module = True
        elif option in ("-h", "--help"):
            print(f"{USAGE}\nparts are: {', '.join(parts)}")
            return
        elif option == "--verbose":
            verbose = True
        elif option == "--doctor":
            examine = True
        elif name not in parts:
            sys.exit(f"{USAGE}\nunknown option {option}; parts are: {', '.join(parts)}")
        else:
            chosen[name] = not option.startswith("--no-")
        if option == "-m":
            break  # as the interpreter's own -m does: what follows is the module and its arguments
    if any(chosen.get(name) for name in MODULES):
        # Naming parts means: just these.
        chosen = {**dict.fromkeys(MODULES, False), **chosen}
    if verbose:
        print(f"patch_all({', '.join(f'{name}={value}' for name, value in chosen.items())}) for {args}")
    if not args:
        sys.exit(USAGE)
    try:
        if examine:
            _examine(args, as_module)
        else:
            monkey.patch_all(**chosen)
            _run(args, as_module)
    except (ImportError, OSError) as error:
        if not _never_began(error):
            raise
        sys.exit(f"cannot run {args[0]}: {getattr(error, 'strerror', None) or error}")


def _run(args: list[str], as_module: bool) -> None:
    """Run a script or module with its arguments as __main__."""
    sys.argv = args
    if as_module:
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
    else:
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(args[0]))
        runpy.run_path(args[0], run_name="__main__")


def _examine(args: list[str], as_module: bool) -> None:
    """Run the program and report on standard error what it imported too early."""
    from weald.monkey._doctor import Doctor

    doctor = Doctor()
    try:
        _run(args, as_module)
    except BaseException as error:
        if not _never_began(error):
            doctor.report(sys.stderr)
        raise
    doctor.report(sys.stderr)


def _never_began(error: BaseException) -> bool:
    """Return whether runpy itself has raised `error`, because it did not find the program."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return isinstance(error, ImportError | OSError) and at is not None and at.tb_frame.f_globals is vars(runpy)


if __name__ == "__main__":
    main()
