"""`python -m weald.monkey [--no-PART …] SCRIPT|-m MODULE ARGS…`: patch, then run the program as __main__."""

import inspect
import os
import runpy
import sys

from weald import monkey

USAGE = "usage: python -m weald.monkey [--no-PART ...] SCRIPT|-m MODULE [ARGS ...]"


def main() -> None:
    """Patch as the options say and run the program."""
    args = sys.argv[1:]
    signature = inspect.signature(monkey.patch_all)
    parts = [name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    chosen: dict[str, bool] = {}
    while args and args[0].startswith("--"):
        option = args.pop(0)
        wanted = not option.startswith("--no-")
        name = option.removeprefix("--no-").removeprefix("--")
        if name not in parts:
            sys.exit(f"{USAGE}\nunknown option {option}; parts are: {', '.join(parts)}")
        chosen[name] = wanted
    as_module = bool(args) and args[0] == "-m"
    if as_module:
        args.pop(0)
    if not args:
        sys.exit(USAGE)
    monkey.patch_all(**chosen)
    sys.argv = args
    if as_module:
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
    else:
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(args[0]))
        runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main()
