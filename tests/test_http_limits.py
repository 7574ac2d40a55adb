"""docs/http.md names each limit with its default, and each option of `weald serve`."""

import re
from dataclasses import asdict
from pathlib import Path

from click.testing import CliRunner

from weald.__main__ import main
from weald.http.limits import Limits
from weald.http.websocket import Options

TEXT = (Path(__file__).parent.parent / "docs" / "http.md").read_text()


def test_the_table_of_limits():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))
    websockets = {f"websocket_{name}": value for name, value in asdict(Options()).items() if name != "compress"}
    assert {name: float(value) for name, value in rows.items()} == asdict(Limits()) | websockets


def test_the_options():
    text = CliRunner().invoke(main, ["serve", "--help"]).output
    options = set(re.findall(r"(--[a-z0-9-]+)", text)) - {"--help"}
    assert len(options) > 15
    assert options == set(re.findall(r"`(--[a-z0-9-]+)`", TEXT))
