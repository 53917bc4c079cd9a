"""The operations on this machine beside PyTorch; nothing is timed before its gate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from types import ModuleType
from typing import Any

import torch

from guide_fast.bench import figures, measure, roofline, run_cases
from guide_fast.bench.case import Case, name_of
from guide_fast.bench.cpu_timer import CpuTimer
from guide_fast.bench.figures import Figure
from guide_fast.bench.specification import Specification
from guide_fast.bench.timer import CudaTimer
from guide_fast.errors import UsageError
from guide_fast.progress import Progress, silent

Row = dict[str, Any]


def run(specification: Specification, *, progress: Progress = silent) -> dict[str, Any]:
    """Measure the chosen cases; the result with a row for each pass. Raises UsageError for an unknown operation."""
    values = specification.values
    torch.set_num_threads(values["threads"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modules = {module.OP: module for module in run_cases.benchmarks("kernels")}
    for op in values["ops"]:
        if op not in modules:
            raise UsageError(f"there is no benchmark of {op}; choose of {', '.join(modules)}")
    taken = [module for op, module in modules.items() if not values["ops"] or op in values["ops"]]
    # in turn, so that little time still shows something of each operation
    turns = zip_longest(*(chosen(module, values, device) for module in taken))
    cases = [case for turn in turns for case in turn if case is not None]
    setting = _setting(values, device)
    end = time.monotonic() + values["seconds"]
    rows: list[Row] = []
    late: list[str] = []
    progress("cases", 0, len(cases), {})
    for done, case in enumerate(cases, 1):
        if time.monotonic() > end:
            late.append(f"{case.op}: {case.name}")
        else:
            rows += run_cases.rows_of(case, setting)
        progress("cases", done, len(cases), {})
    return figures.envelope(
        specification, dict(_figures(rows)), rows, cuda=device.type == "cuda", left_out_for_want_of_time=late
    )


def chosen(module: ModuleType, values: Mapping[str, Any], device: torch.device) -> list[Case]:
    """The cases of one operation that a run takes."""
    cases = list(module.cases(smoke=values["small"]))
    if device.type == "cpu":
        # a CPU multiplies in float32: the gate is not that of TF32
        cases = [dataclasses.replace(case, tf32=False) for case in cases]
        for dtype in values["dtypes"]:
            if found := [case for case in cases if name_of(case.dtype) == dtype]:
                cases = found
                break
        cases = [case for case in cases if int(case.shape.get("batch", 1)) <= values["most_batch"]] or cases
    return cases[: values["most_cases"]]


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for a reader of a terminal."""
    for row in result["rows"]:
        yield run_cases.line(row)
    if late := result["left_out_for_want_of_time"]:
        yield f"left out for want of time: {'; '.join(late)}"


def _setting(values: Mapping[str, Any], device: torch.device) -> measure.Setting:
    settings = {name: values[name] for name in ("warm_up", "repeats", "most_ms")}
    allowance = measure.Allowance(values["compile_seconds"])
    if device.type == "cpu":
        return measure.Setting(device, CpuTimer(**settings), None, allowance)
    timer = CudaTimer(**settings)
    return measure.Setting(device, timer, roofline.measure(timer), allowance)


def _figures(rows: list[Row]) -> Iterator[tuple[str, Figure]]:
    for row in rows:
        if row["gate"] != "passed":
            continue
        mode = f"{row['op']}, {row['case']}, {row['dtype']}, {row['pass']}"
        for name, contender in row["contenders"].items():
            yield f"{mode}: {name}", contender["device_ms"] | {"n": contender["repeats"], "unit": "ms"}
