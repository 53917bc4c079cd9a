"""Turns a case into rows: gate first, then the contenders against each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guide_fast.bench.capture import captured
from guide_fast.bench.case import FORWARD, Case, Problem, Work
from guide_fast.bench.cpu_timer import CpuTimer
from guide_fast.bench.gate import Gate, cotangent, leaves_of
from guide_fast.bench.precision import fastest_convolutions, products
from guide_fast.bench.roofline import Roofline
from guide_fast.bench.timer import CudaTimer, NoTimer, Timing
from guide_fast.kernels import ImplementationUnavailable, _dispatch

OURS = "ours"
COMPILE = "torch.compile"
GRAPH = f"{OURS}, CUDA graph"

Row = dict[str, Any]


@dataclass
class Allowance:
    """Seconds that torch.compile may still take."""

    seconds: float

    def spend(self, work: Callable[[], Any]) -> Any:
        """Do `work`, on account."""
        start = time.monotonic()
        try:
            return work()
        finally:
            self.seconds -= time.monotonic() - start


@dataclass(frozen=True)
class Setting:
    """Where cases run, by what they are judged."""

    device: torch.device
    timer: CudaTimer | CpuTimer | NoTimer
    roofline: Roofline | None
    allowance: Allowance
    impls: tuple[str, ...] = ()  # timed beside what "auto" takes


def run(case: Case, setting: Setting) -> list[Row]:
    """A row for each pass of the case; one that says why when the case fails its gate."""
    with products(tf32=case.tf32):
        problem = case.build(setting.device)
        gate = None if problem.check else Gate(problem, tf32=case.tf32)
        complaint = _complaint(gate, problem, "auto")
        if complaint is None:
            able, complaint, left_out = _implementations(problem, gate, setting)
        if complaint:
            return [describe(case) | {"gate": f"failed: {complaint}"}]
        others, why_not = _others(problem, gate, setting)
        contenders, left_out = able | others, left_out | why_not
        return [_row(case, work, problem, contenders, left_out, setting) for work in case.works]


def describe(case: Case) -> Row:
    """What a row says about its case."""
    shape = {"models": list(case.models), "shape": dict(case.shape), "dtype": case.unit}
    return {"op": case.op, "case": case.name} | shape


def _implementations(
    problem: Problem, gate: Gate | None, setting: Setting
) -> tuple[dict[str, Any], str | None, dict[str, str]]:
    """Ours by name, a complaint about the first that is wrong, why others cannot run."""
    able: dict[str, Any] = {OURS: lambda *inputs: problem.ours(*inputs, impl="auto")}
    left_out: dict[str, str] = {}
    for impl in setting.impls:
        name = f"{OURS}, {impl}"
        try:
            if complaint := _complaint(gate, problem, impl):
                return able, f"impl={impl!r}: {complaint}", left_out
        except ImplementationUnavailable as error:
            left_out[name] = str(error)
        else:
            able[name] = lambda *inputs, impl=impl: problem.ours(*inputs, impl=impl)
    if problem.captured and setting.device.type != "cuda":
        left_out[GRAPH] = "needs a CUDA device"
    elif problem.captured:
        able[GRAPH] = captured(able[OURS], problem.inputs)
        if gate and (complaint := gate.complaint(lambda *inputs: able[GRAPH](*inputs).clone())):
            return able, f"as a CUDA graph: {complaint}", left_out
    return able, None, left_out


def _others(problem: Problem, gate: Gate | None, setting: Setting) -> tuple[dict[str, Any], dict[str, str]]:
    """Baselines, eager then compiled, that may be timed; why the rest may not."""
    able: dict[str, Any] = {}
    left_out = {}
    for name, function in problem.baselines.items():
        try:
            complaint = gate.complaint(function, baseline=True) if gate else None
        except torch.OutOfMemoryError:
            complaint = "out of memory"
        if complaint:
            left_out[name] = complaint
        else:
            able[name] = function
    if problem.compiled and setting.timer.measures:
        torch.compiler.reset()  # its limit of recompilations is one for all shapes
    for name, function in problem.compiled.items():
        label = COMPILE if len(problem.compiled) == 1 else f"{COMPILE}, {name}"
        if not setting.timer.measures:
            left_out[label] = "not compiled in a run that measures nothing"
        elif setting.allowance.seconds <= 0:
            left_out[label] = "the time that compilation may take is spent"
        else:
            compiled = torch.compile(function, dynamic=False, fullgraph=True)
            try:
                complaint = setting.allowance.spend(partial(_compiled_complaint, gate, compiled, problem))
            except Exception as error:  # the compiler's own trouble is no reason to stop
                complaint = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if complaint:
                left_out[label] = complaint
            else:
                able[label] = compiled
    return able, left_out


def _compiled_complaint(gate: Gate | None, compiled: Any, problem: Problem) -> str | None:
    """Compiles for both passes."""
    with torch.no_grad():
        compiled(*problem.inputs)
    return gate.complaint(compiled, baseline=True) if gate else None


def _complaint(gate: Gate | None, problem: Problem, impl: str) -> str | None:
    """Why one of our implementations is wrong, or None; outputs start as NaN."""
    if problem.check:
        return problem.check(impl)
    assert gate is not None
    with _dispatch.poisoned_outputs():
        return gate.complaint(lambda *inputs: problem.ours(*inputs, impl=impl))


def _row(
    case: Case, work: Work, problem: Problem, contenders: dict[str, Any], left_out: dict[str, str], setting: Setting
) -> Row:
    calls = {name: _call(function, work, problem) for name, function in contenders.items()}
    with fastest_convolutions():
        timings = setting.timer.compare(calls)
    row = describe(case) | {"pass": work.name, "gate": "passed", "flops": work.flops, "least_bytes": work.moved}
    row |= {"contenders": {name: figures(timing, case, work, setting.roofline) for name, timing in timings.items()}}
    if timings:
        ours = timings[OURS].device_ms["median"]
        row["speedup"] = {name: t.device_ms["median"] / ours for name, t in timings.items() if name != OURS}
    return row | {"left_out": left_out}


def _call(function: Any, work: Work, problem: Problem) -> Callable[[], Any]:
    """One call of the pass without arguments."""
    if work.name == FORWARD:
        inputs = [t.detach() for t in problem.inputs]

        def forward() -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    leaves = leaves_of(problem.inputs, problem.trained)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    with torch.enable_grad():
        gy: Tensor = cotangent(function(*leaves).detach())

    def both() -> Any:
        with torch.enable_grad():
            return torch.autograd.grad(function(*leaves), wanted, gy)

    return both


def figures(timing: Timing, case: Case, work: Work, roofline: Roofline | None) -> Row:
    """Milliseconds, rates, fraction of the measured roofline."""
    seconds = timing.device_ms["median"] * 1e-3
    row: Row = {"device_ms": timing.device_ms, "host_ms": timing.host_ms}
    if timing.peak_bytes is not None:
        row["peak_bytes"] = timing.peak_bytes
    row |= {"repeats": timing.repeats, "tflops": work.flops / seconds * 1e-12, "gb_per_s": work.moved / seconds * 1e-9}
    if roofline is not None:
        row["roofline"] = roofline.least_seconds(work.by_unit(case.unit), work.moved) / seconds
        row["bound"] = roofline.bound(work.by_unit(case.unit), work.moved)
    return row
