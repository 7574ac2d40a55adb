"""Run shell commands in parallel, a few at a time; their output comes whole, in the order of the commands.

python examples/run_many.py AT_A_TIME COMMAND…        for instance: 2 "sleep 1; date" "sleep 1; date" "date"
"""

import sys

from weald import pool, subprocess


def run(command: str) -> tuple[str, int, str]:
    """Waiting for the child parks this greenlet alone."""
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return command, done.returncode, done.stdout


if __name__ == "__main__":
    failed = 0
    for command, status, output in pool.Pool(int(sys.argv[1])).imap(run, sys.argv[2:]):
        print(f"$ {command}\n{output}", end="", flush=True)
        failed += status != 0
    sys.exit(failed)
