"""Runs tests again on a lower instruction set, which a process can choose only at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_at_level(level: str, op: str, tests: str, part: str = "") -> None:
    """The tests of `op` that the pytest expression `tests` picks, on "base" or "v3"; fails with their report.

    `part` names another file of its tests than the first: "_native".
    """
    file = Path(__file__).parent / op / f"test_{op}{part}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-k", tests]
    done = subprocess.run(command, env=os.environ | {"GUIDE_FAST_ISA": level}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
