"""A contender of a benchmark in a process of its own, because memory settings are a matter of the whole process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def timed(run: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, by the process's CPU time; what `run` returns is freed after the clock has stopped."""
    wall, cpu = time.perf_counter(), time.process_time()
    kept = run()
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    del kept
    return seconds


class Worker:
    """`python -m MODULE --worker NAME ...`, which answers each line on its stdin with one of JSON.

    `outputs` is where it may leave arrays, in `folder`.
    """

    def __init__(self, module: str, name: str, folder: Path, *, threads: int, **options: int | str) -> None:
        self.name, self.outputs = name, folder / f"{name}.npz"
        command = [sys.executable, "-m", module, "--worker", name, "--threads", str(threads)]
        command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, what: str) -> Any:
        """One answer of the process."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended before its answer; its message is above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
