"""A case becomes rows: gate before timing, rates from what was measured, reasons for what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from guide_fast.bench import measure, run_cases
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work
from guide_fast.bench.record import quantiles
from guide_fast.bench.roofline import Roofline
from guide_fast.bench.timer import Timing
from guide_fast.kernels import ImplementationUnavailable


class MadeUpTimer:
    """Says that ours takes 1 ms, the k-th other k + 1 ms; calls everything once."""

    measures = True

    def __init__(self) -> None:
        self.called: list[list[str]] = []

    def compare(self, contenders: Mapping[str, Callable[[], Any]]) -> dict[str, Timing]:
        self.called.append(list(contenders))
        for call in contenders.values():
            call()
        return {name: Timing(quantiles([i + 1.0]), 0.1, 10 * (i + 1), 3) for i, name in enumerate(contenders)}


def square(x: Tensor) -> Tensor:
    return x.square()


def ours(x: Tensor, *, impl: str) -> Tensor:
    if impl == "cuda":
        raise ImplementationUnavailable("no device")
    return x * x


CASE = Case(
    "square",
    "8",
    ("none",),
    {"n": 8},
    torch.float32,
    (Work(FORWARD, 1e9, 1e6), Work(BOTH, 3e9, 3e6)),
    lambda device: Problem((torch.arange(8.0),), ours, square, {"eager": square}),
)


def setting(**more: Any) -> measure.Setting:
    ceilings = Roofline(1e9, {"float32": 1e13})
    return measure.Setting(torch.device("cpu"), MadeUpTimer(), ceilings, measure.Allowance(0.0), **more)


def changed(**more: Any) -> Case:
    return replace(CASE, build=lambda device: replace(CASE.build(device), **more))


def test_rates_follow_from_what_was_measured() -> None:
    forward, both = measure.run(CASE, setting())
    figures = forward["contenders"]["ours"]
    assert (forward["pass"], both["pass"]) == (FORWARD, BOTH)
    assert figures["tflops"] == pytest.approx(1.0)
    assert figures["gb_per_s"] == pytest.approx(1.0)
    assert figures["roofline"] == pytest.approx(1.0)  # 1e6 bytes at 1e9 a second
    assert figures["bound"] == "bytes"
    assert forward["speedup"] == {"eager": pytest.approx(2.0)}
    assert both["contenders"]["ours"]["tflops"] == pytest.approx(3.0)


def test_wrong_kernel_is_not_timed() -> None:
    here = setting()
    (row,) = measure.run(changed(ours=lambda x, impl: x * x * 1.01), here)
    assert row["gate"].startswith("failed: the output")
    assert not here.timer.called
    assert run_cases.line(row).startswith("square: 8: failed")


def test_wrong_explicit_implementation_fails_the_case_one_that_cannot_run_does_not() -> None:
    here = setting(impls=("triton", "cuda"))
    (row, _) = measure.run(CASE, here)
    assert row["left_out"] == {"ours, cuda": "no device"}
    assert here.timer.called[0] == ["ours", "ours, triton", "eager"]
    (row,) = measure.run(changed(ours=lambda x, impl: x * x * (1.01 if impl == "triton" else 1)), here)
    assert row["gate"].startswith("failed: impl='triton'")


def test_wrong_baseline_is_left_out_with_the_reason() -> None:
    row, _ = measure.run(changed(baselines={"eager": square, "other": lambda x: x + x}), setting())
    assert "error" in row["left_out"]["other"]
    assert row["speedup"].keys() == {"eager"}


def test_compilation_stops_when_its_time_is_spent() -> None:
    row, _ = measure.run(changed(compiled={"eager": square}), setting())
    assert row["left_out"] == {"torch.compile": "the time that compilation may take is spent"}


def test_compilation_is_on_account() -> None:
    allowance = measure.Allowance(10.0)
    assert allowance.spend(lambda: 3) == 3
    assert allowance.seconds < 10.0
    with pytest.raises(RuntimeError):
        allowance.spend(lambda: (_ for _ in ()).throw(RuntimeError("x")))


@pytest.mark.parametrize(
    ("error", "gate"),
    [
        (torch.OutOfMemoryError("big"), "not checked: the reference runs out of memory"),
        (RuntimeError("odd"), "failed: RuntimeError: odd"),
    ],
)
def test_trouble_of_one_case_does_not_stop_the_others(error: Exception, gate: str) -> None:
    def build(device: torch.device) -> Problem:
        raise error

    (row,) = run_cases.rows_of(replace(CASE, build=build), setting())
    assert row["gate"] == gate


def test_lost_device_stops_everything() -> None:
    def build(device: torch.device) -> Problem:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_cases.rows_of(replace(CASE, build=build), setting())


def test_own_check_replaces_the_gate() -> None:
    (row,) = measure.run(changed(check=lambda impl: f"{impl}: weights differ"), setting())
    assert row["gate"] == "failed: auto: weights differ"
    assert measure.run(changed(check=lambda impl: None), setting())[0]["gate"] == "passed"
