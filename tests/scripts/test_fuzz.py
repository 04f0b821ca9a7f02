"""Drawn and listed wrong command lines: each ends well, or with one line and exit status 2."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

import hostile

ROOT = Path(__file__).parents[2]
DRAWN = 100


def count_refused(program, command_lines):
    """How many of them the parser refuses; anything but that and accepting fails."""
    refused = 0
    for argv in command_lines:
        printed = io.StringIO()
        try:
            with redirect_stderr(printed):
                hostile.parse(program, argv)
        except SystemExit as stop:
            lines = [
                line for line in printed.getvalue().splitlines() if line.startswith(f"{program}: error: ")
            ]
            # Help ends with 0.
            assert stop.code == 2 and len(lines) == 1, (argv, printed.getvalue())
            refused += 1
    return refused


@pytest.mark.parametrize("program", hostile.BASE)
def test_parsers(program, tmp_path):
    drawn = [hostile.draw(program, f"{program}-{number}", tmp_path) for number in range(DRAWN)]
    listed = [
        hostile.arguments_of(name, rest) for name, rest, early in hostile.LISTED if early and name == program
    ]

    def check():
        assert 0 < count_refused(program, drawn) < DRAWN
        assert count_refused(program, listed) == len(listed)

    hostile.write_recipes(tmp_path)
    place = tmp_path / "case"
    place.mkdir()
    # The Trainer's options set up accelerate, of which a process has one.
    end, printed = hostile.attempt(check, folder=place)
    assert end == hostile.ACCEPTED, printed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_programs(tmp_path):
    """The table of all of them: with `-s` it shows."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "hostile.py", tmp_path, "0", "40"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
