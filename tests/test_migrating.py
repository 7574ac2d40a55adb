"""The names in docs/migrating.md exist: each of gevent's names, in both places, and each of eventlet's."""

import re
from pathlib import Path

from helpers import python

from weald.compat.__main__ import EVENTLET

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "migrating.md").read_text()


def rows(heading):
    """The cells of the table under `heading`."""
    part = TEXT.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| `")]


def test_gevents_names_are_where_the_table_says():
    table = [
        (gevent.strip("`"), re.findall(r"`(\w+)`", names), weald.strip("`"))
        for gevent, names, weald, _ in rows("### Where the names are")
    ]
    assert len(table) > 35 and {"gevent", "gevent.hub", "gevent.monkey"} <= {row[0] for row in table}
    python(
        f"""
        import importlib, weald
        weald.install_as_gevent()
        for module, names, home in {table!r}:
            for name in names:
                one = getattr(importlib.import_module(module), name)
                place = importlib.import_module(home)
                other = getattr(place, name)
                assert one is other or name in ("BaseServer", "formatError"), (module, name, home)
        """
    )


def test_eventlets_names_are_those_of_the_checker():
    assert {name.strip("`"): home for name, home in rows("## From eventlet")} == EVENTLET
