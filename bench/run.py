"""The proof on a GPU, in minutes, without a network: tests, memory checks, then benchmarks of what passed.

The benchmarks are those of the operations, then those of the generators' whole images. Of the time that is left when a
part begins, tests may take 3/5, memory checks 3/20, operations 3/5, generators all.

`python -m guide_fast.bench.run` on a machine with a CUDA device, `--smoke` anywhere: the same code on tiny shapes,
which measures nothing. Results go to bench/results/<device>/.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from guide_fast.bench import record
from guide_fast.bench.native_libraries import take_from_wheel
from guide_fast.bench.sources import ROOT
from guide_fast.bench.verdict import print_results

MINUTES = 8.0
# What each part may take of the whole; what one leaves, the next ones have.
SHARES = {"tests": 0.6, "sanitizer": 0.15, "bench": 0.6, "generators": 1.0}
PARTS = tuple(SHARES)
TIMED = {"bench": "kernels", "generators": "generators"}  # part -> folder of benchmarks
SANITIZER_ERROR = 9


@dataclass
class Clock:
    """The time that is left."""

    end: float

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def of(self, part: str) -> float:
        """Seconds that `part` may take now."""
        return max(self.left() * SHARES[part], 1.0)


def main() -> int:
    """Run the parts in order, store what each found; 1 when something is wrong, goals that are missed are not."""
    arguments = _arguments()
    device = "cpu" if arguments.smoke else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print(f"make gpu: torch {torch.__version__} sees no CUDA device here, so nothing was run or measured")
        return 1
    if arguments.wheel:
        take_from_wheel(arguments.wheel, ROOT / "guide_fast")
    with tempfile.TemporaryDirectory() as arguments.home:  # what one benchmark chose, the next ones need not measure
        return run_parts(arguments, device)


def run_parts(arguments: argparse.Namespace, device: str) -> int:
    """The same from parsed arguments, on `device`."""
    clock, started = Clock(time.monotonic() + 60 * arguments.minutes), time.time()
    folder = arguments.out or (ROOT / "out" / "bench-smoke" if arguments.smoke else record.RESULTS / record.slug())
    folder.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"provenance": record.provenance(cuda=device == "cuda")}
    print(_headline(summary["provenance"]), flush=True)
    for part in PARTS:
        if part not in arguments.parts:
            summary[part] = {"state": "left out", "said": "not asked for"}
        elif part in TIMED and (failed := [name for name in PARTS[:2] if summary[name]["state"] == "failed"]):
            summary[part] = {"state": "left out", "said": f"{' and '.join(failed)} failed: nothing is timed"}
        else:
            summary[part] = PART[part](arguments, folder, clock.of(part))
        print(f"{part}: {summary[part]['state']}: {summary[part]['said']}", flush=True)
        _write(folder / "summary.json", summary)
    if any(summary[part]["state"] in ("passed", "failed", "cut short") for part in TIMED):
        print_results(folder, since=started - 1)  # not what an earlier run left
    print(f"stored in {folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder}")
    return int(any(summary[part]["state"] == "failed" for part in PARTS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="on the CPU, tiny shapes, nothing is measured")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop after so many, say what was left out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ops", nargs="+", default=[], help="benchmark these operations only")
    parser.add_argument("--impls", nargs="+", default=[], help="time these beside what impl='auto' takes")
    parser.add_argument("--wheel", type=Path, help="take the compiled libraries from this wheel of guide-fast")
    parser.add_argument("--out", type=Path, help="instead of bench/results/<device>/")
    return parser.parse_args()


def run_tests(arguments: argparse.Namespace, folder: Path, seconds: float) -> dict[str, Any]:
    """`pytest -m gpu` over kernels, benchmarks, several at a time where pytest-xdist is there."""
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", f"--junitxml={report}"]
    if arguments.smoke:
        command += ["--collect-only"]
    elif _has_module("xdist"):
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    code, output = _child([*command, "tests/kernels", "tests/bench"], seconds, environment={"TRITON_INTERPRET": "0"})
    if code is None:
        return {"state": "failed", "said": f"not finished within {seconds:.0f} s", "tail": output[-4000:]}
    if arguments.smoke:
        return {"state": "left out" if code in (0, 5) else "failed", "said": "collected, not run: no CUDA device asked"}
    counts = _counts(report)
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number or name == "passed")
    state = "passed" if code == 0 and counts.get("passed") else "failed"
    return {"state": state, "said": said or f"pytest ended with {code}", "counts": counts, "tail": output[-4000:]}


def run_sanitizer(arguments: argparse.Namespace, folder: Path, seconds: float) -> dict[str, Any]:
    """compute-sanitizer's memcheck over small shapes of every implementation, every allocation on its own."""
    import shutil

    program = shutil.which("compute-sanitizer")
    if arguments.smoke or program is None:
        said = "needs a CUDA device" if arguments.smoke else "compute-sanitizer is not on PATH"
        return {"state": "left out", "said": said}
    cases = [sys.executable, "-m", "guide_fast.bench.run_cases", "--small", "--ops", *arguments.ops]
    # once without it: kernels get compiled, which under the tool takes long
    code, output = _child(cases, seconds / 2)
    if code:
        return {"state": "failed", "said": f"small shapes ended with {code}", "tail": output[-4000:]}
    check = [program, "--tool", "memcheck", "--error-exitcode", str(SANITIZER_ERROR), "--target-processes", "all"]
    code, output = _child([*check, *cases], seconds / 2, environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    if code is None:
        return {"state": "left out", "said": f"not finished within {seconds / 2:.0f} s", "tail": output[-4000:]}
    said = "no error" if code == 0 else f"ended with {code}"
    return {"state": "passed" if code == 0 else "failed", "said": said, "tail": output[-4000:]}


def run_bench(arguments: argparse.Namespace, folder: Path, seconds: float, *, group: str = "kernels") -> dict[str, Any]:
    """The benchmarks of a group, in a process that can be ended; what it stored until then stays."""
    command = [
        sys.executable,
        "-m",
        "guide_fast.bench.run_cases",
        "--folder",
        str(folder),
        "--seconds",
        str(seconds - 10),
        "--group",
        group,
        "--home",
        arguments.home,
    ]
    command += ["--small", "--device", "cpu"] if arguments.smoke else []
    command += ["--ops", *arguments.ops, "--impls", *arguments.impls]
    code, output = _child(command, seconds, show=True)
    if code is None:
        return {"state": "cut short", "said": f"ended after {seconds:.0f} s; what was stored until then stays"}
    lines = output.strip().splitlines() or [""]
    return {"state": "passed" if code == 0 else "failed", "said": lines[-1], "tail": output[-4000:]}


PART = {"tests": run_tests, "sanitizer": run_sanitizer}
PART |= {part: partial(run_bench, group=group) for part, group in TIMED.items()}


def _child(
    command: list[str], seconds: float, *, environment: dict[str, str] | None = None, show: bool = False
) -> tuple[int | None, str]:
    """Exit code, output; None when it had to be ended. Ends its children too."""
    inherited = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | inherited | {"PYTHONUNBUFFERED": "1"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        late = _Deadline(process, seconds)
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if show:
                print(f"  {line}", end="", flush=True)
        code = process.wait()
        return (None if late.passed() else code), "".join(lines)


class _Deadline:
    """Ends a process group when its time is over."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        import threading

        self._fired = False
        self._process = process
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self._fired = True
        os.killpg(self._process.pid, signal.SIGKILL)

    def passed(self) -> bool:
        """Whether it had to; stops waiting."""
        self._timer.cancel()
        return self._fired


def _counts(report: Path) -> dict[str, int]:
    if not report.is_file():
        return {}
    suites = list(xml.parse(report).getroot().iter("testsuite"))
    found = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("failures", "errors", "skipped")}
    total = sum(int(suite.get("tests", 0)) for suite in suites)
    return {"passed": total - sum(found.values())} | found


def _headline(provenance: dict[str, Any]) -> str:
    cuda = provenance.get("cuda", {})
    where = cuda.get("device", provenance["processor"])
    return f"guide-fast {provenance['commit']} on {where}, torch {provenance['torch']}"


def _has_module(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
