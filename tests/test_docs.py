"""Every Python example in the docs runs unchanged, in a program of its own.

Servers are stopped as soon as they have started, and listen on a port that the system chooses.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]
SERVERS_STOP = """
from weald.server import BaseServer


def start_and_stop(self):
    self.start()
    self.stop()


BaseServer.serve_forever = start_and_stop
"""


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_run(text, tmp_path):
    for package in ("sqlalchemy", "django"):
        if f"from {package}" in text:
            pytest.importorskip(package)
    program = SERVERS_STOP + text.replace('":8000"', '"127.0.0.1:0"')
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_options_can_be_read(page, tmp_path):
    """TOML for `weald serve`; units of systemd, which has no comments behind a value."""
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^ *[A-Z][A-Za-z]+=.*[ \t]#.*", text, re.M) == []
    (tmp_path / "shop.py").write_text("def app(environ, start_response): ...")
    for table in re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S):
        (tmp_path / "weald.toml").write_text(table.replace("/run", str(tmp_path)).replace(":8000", ":0"))
        command = [sys.executable, "-m", "weald", "serve", "--check"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_there_are_examples():
    assert len(EXAMPLES) > 8
