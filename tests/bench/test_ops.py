"""`bench ops` on tiny shapes: gates first, then times; CPU cases are chosen for a CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from guide_fast.bench import measure, ops, run_cases
from guide_fast.bench.cpu_timer import CpuTimer
from guide_fast.bench.specification import load
from guide_fast.errors import UsageError


def run(*names: str, **values: Any) -> dict[str, Any]:
    specification = load("ops", quick=True).changed(ops=list(names), threads=1, repeats=3, **values)
    return ops.run(specification)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the operations run there")
def test_rows_are_gated_then_timed() -> None:
    result = run("haar")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [row["gate"] for row in result["rows"]] == ["passed", "passed"]
    for row in result["rows"]:
        assert row["contenders"]["ours"]["device_ms"]["median"] > 0 and row["speedup"]["eager PyTorch"] > 0
        assert "peak_bytes" not in row["contenders"]["ours"], "a CPU's memory is not measured"
    assert all(figure["unit"] == "ms" for figure in result["figures"].values())
    assert any("correct, " in line for line in ops.words(result))


def test_wrong_operation_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_complaint", lambda gate, problem, impl: "the output has a largest error of 1")
    result = run("haar")
    assert result["figures"] == {}
    assert [row["gate"] for row in result["rows"]] == ["failed: the output has a largest error of 1"]


def test_unknown_operation_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no benchmark of har; choose of .*haar"):
        run("har")


def test_cases_that_begin_too_late_are_named() -> None:
    result = run("haar", seconds=-1.0)
    assert result["rows"] == [] and len(result["left_out_for_want_of_time"]) == 1


def test_operations_take_turns() -> None:
    late = run("haar", "identity_loss", seconds=-1.0)["left_out_for_want_of_time"]
    assert [name.partition(":")[0] for name in late] == ["haar", "identity_loss", "identity_loss"]


def test_cpu_takes_few_small_cases_in_float32_where_there_are_any() -> None:
    values = load("ops").values
    for module in run_cases.benchmarks("kernels"):
        cases = ops.chosen(module, values, torch.device("cpu"))
        assert 1 <= len(cases) <= values["most_cases"]
        assert not any(case.tf32 for case in cases)
        in_float32 = [case for case in module.cases() if case.dtype == torch.float32]
        assert {case.dtype for case in cases} == ({torch.float32} if in_float32 else {torch.float16})


def test_timer_calls_contenders_in_turn_after_warming_up() -> None:
    called: list[str] = []
    contenders = {name: (lambda name=name: called.append(name)) for name in ("a", "b")}
    timings = CpuTimer(warm_up=2, repeats=4).compare(contenders)
    assert called == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 4
    assert timings["a"].repeats == 4 and timings["a"].device_ms["median"] >= 0
