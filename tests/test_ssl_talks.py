"""TLS as the standard library has it: tls_talks.py holds the same conversations in plain Python and in weald.

Each outcome (results, exceptions with their numbers and texts, who gets what first) must be that of plain Python.
Both ends are in one process, so a call that blocks its thread makes the conversation hang.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE

PROGRAM = Path(__file__).with_name("tls_talks.py")
MODES = ("plain", "patched", "native")


def scenarios():
    listed = subprocess.run([sys.executable, PROGRAM, "list", "", ""], capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.fixture(scope="module")
def outcomes(certificate):
    """What each mode's program has printed: mode to scenario to outcome."""
    started = {
        mode: subprocess.Popen(
            [sys.executable, PROGRAM, mode, certificate.cert, certificate.key],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mode in MODES
    }
    results = {}
    for mode, process in started.items():
        out, errors = process.communicate(timeout=5 * PATIENCE)
        assert process.returncode == 0, errors
        results[mode] = dict(json.loads(line) for line in out.splitlines())
    return results


@pytest.mark.parametrize("name", scenarios())
def test_as_the_standard_library(outcomes, name):
    expected = outcomes["plain"][name]
    assert expected != "waits"
    assert outcomes["patched"][name] == expected
    assert outcomes["native"][name] == expected
