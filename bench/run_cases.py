"""Runs the benchmarks of all operations that are here, or of all generators, case by case, until the time is over."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from guide_fast import kernels
from guide_fast.bench import measure, record, roofline
from guide_fast.bench.case import Case
from guide_fast.bench.timer import CudaTimer, NoTimer

COMPILE_SHARE = 0.4  # of the time: torch.compile would take all of it
SMALL_IMPLS = ("triton", "cuda")
GROUPS = ("kernels", "generators")  # folders of benchmarks: operations, whole images


def main() -> int:
    """Run, store after each operation's turn; 1 when a case fails its gate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny shapes, nothing is measured")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, help="where to store; without it nothing is")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--group", choices=GROUPS, default=GROUPS[0])
    parser.add_argument("--home", type=Path, help="where measured choices are kept; without it they are forgotten")
    parser.add_argument("--ops", nargs="*", default=[])
    parser.add_argument("--impls", nargs="*", default=[])
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as fresh:
        # choices that an earlier version measured do not count
        os.environ["GUIDE_FAST_HOME"] = str(arguments.home or fresh)
        return run(arguments, end)


def run(arguments: argparse.Namespace, end: float) -> int:
    """The same from parsed arguments, until `end` on the monotonic clock."""
    known = {group: {module.OP: module for module in benchmarks(group)} for group in GROUPS}
    names = [op for group in known.values() for op in group]
    for op in sorted(set(arguments.ops) - set(names)):
        sys.exit(f"there is no benchmark of {op}; choose of {', '.join(names)}")
    modules = {op: m for op, m in known[arguments.group].items() if not arguments.ops or op in arguments.ops}
    setting = _setting(arguments)
    results = {op: _empty(module, setting) for op, module in modules.items()}
    for case in turns(modules, small=arguments.small):
        result = results[case.op]
        if time.monotonic() > end:
            result["left_out"].append(case.name)
            continue
        for row in rows_of(case, setting):
            result["rows"].append(row)
            print(line(row), flush=True)
        store(arguments.folder, case.op, result, modules[case.op])
    for op, result in results.items():
        store(arguments.folder, op, result, modules[op])
    failed = [row for result in results.values() for row in result["rows"] if row["gate"].startswith("failed")]
    left = sum(len(result["left_out"]) for result in results.values())
    rows = sum(len(result["rows"]) for result in results.values())
    print(f"{rows} rows, {len(failed)} wrong, {left} cases left out for want of time")
    return bool(failed)


def benchmarks(group: str) -> Iterator[ModuleType]:
    """bench/<group>/bench_*.py; of operations those that this checkout has."""
    for file in sorted((Path(__file__).parent / group).glob("bench_*.py")):
        if group != "kernels" or hasattr(kernels, file.stem.removeprefix("bench_")):
            yield importlib.import_module(f"guide_fast.bench.{group}.{file.stem}")


def turns(modules: dict[str, ModuleType], *, small: bool) -> Iterator[Case]:
    """The operations' cases in turn, so that little time still shows something of each."""
    for cases in zip_longest(*(module.cases(smoke=small) for module in modules.values())):
        yield from filter(None, cases)


def line(row: dict[str, Any]) -> str:
    """A row as one line; figures only where something was measured."""
    start = f"{row['op']}: {row['case']}"
    if row["gate"] != "passed":
        return f"{start}: {row['gate']}"
    start += f", {row['pass']}: correct"
    if "speedup" not in row:
        return start
    ours = row["contenders"][measure.OURS]
    ms = ours["device_ms"]
    rates = f"{ours['tflops']:.1f} TFLOP/s, {ours['gb_per_s']:.0f} GB/s"
    rates += f", {ours['roofline']:.0%} of the roofline ({ours['bound']})" if "roofline" in ours else ""
    ratios = ", ".join(f"{value:.2f}x {name}" for name, value in row["speedup"].items())
    return f"{start}, {ms['median']:.4f} ms [{ms['p20']:.4f} to {ms['p80']:.4f}], {rates}; {ratios or 'alone'}"


def store(folder: Path | None, op: str, result: dict[str, Any], module: ModuleType) -> None:
    """Write <folder>/<op>.json with the goals judged by what is there."""
    if folder is not None:
        goals = [goal.verdict(result["rows"]) for goal in module.GOALS]
        content = json.dumps(result | {"goals": goals, "choices": _choices(op)}, indent=1, sort_keys=True)
        (folder / f"{op}.json").write_text(content + "\n", encoding="utf-8")


def _setting(arguments: argparse.Namespace) -> measure.Setting:
    device = torch.device(arguments.device)
    impls = tuple(arguments.impls) or (SMALL_IMPLS if arguments.small and device.type == "cuda" else ())
    if arguments.small:
        return measure.Setting(device, NoTimer(), None, measure.Allowance(0), impls)
    timer = CudaTimer()
    ceilings = roofline.measure(timer)
    units = ", ".join(f"{value * 1e-12:.0f} TFLOP/s {unit}" for unit, value in ceilings.flops_per_s.items())
    print(f"measured ceilings: {ceilings.bytes_per_s * 1e-9:.0f} GB/s copied, {units}", flush=True)
    return measure.Setting(device, timer, ceilings, measure.Allowance(COMPILE_SHARE * arguments.seconds), impls)


def _empty(module: ModuleType, setting: measure.Setting) -> dict[str, Any]:
    return {
        "op": module.OP,
        "provenance": record.provenance(cuda=setting.device.type == "cuda"),
        "measured": setting.timer.measures,
        "roofline": None if setting.roofline is None else setting.roofline.saved(),
        "rows": [],
        "left_out": [],
    }


def rows_of(case: Case, setting: measure.Setting) -> list[dict[str, Any]]:
    """A row for each pass of the case; one that says so where it fails, or fails its gate."""
    try:
        return measure.run(case, setting)
    except torch.OutOfMemoryError:
        return [measure.describe(case) | {"gate": "not checked: the reference runs out of memory"}]
    except Exception as error:  # one operation's trouble must not hide the others' results
        if "CUDA error" in str(error):
            raise  # the device is lost to this process
        return [measure.describe(case) | {"gate": f"failed: {type(error).__name__}: {error}"}]
    finally:
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


def _choices(op: str) -> dict[str, Any]:
    """What impl="auto" measured, took."""
    from guide_fast.kernels import _choice

    return {name: entry for name, entry in _choice.table().items() if name.split(" | ")[1:2] == [op]}


if __name__ == "__main__":
    sys.exit(main())
