"""Micro-benchmarks of the operations: `pytest --benchmark-only tests/bench`; elsewhere each runs once, untimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from guide_fast.bench import run_cases
from guide_fast.bench.case import BOTH, Case
from guide_fast.bench.gate import Gate, cotangent, leaves_of

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is part of the dev extra")

CASES = [next(iter(module.cases(smoke=True))) for module in run_cases.benchmarks("kernels")]

DIFFERENTIABLE = [case for case in CASES if any(work.name == BOTH for work in case.works)]


@pytest.fixture(params=CASES, ids=lambda case: case.op)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def gated(case: Case) -> tuple[Any, Callable[..., Any]]:
    """The problem with our function, which has passed its gate just now."""
    problem = case.build(torch.device("cpu"))

    def ours(*inputs: torch.Tensor) -> Any:
        return problem.ours(*inputs, impl="auto")

    complaint = problem.check("auto") if problem.check else Gate(problem, tf32=False).complaint(ours)
    assert complaint is None, complaint
    return problem, ours


def test_forward(case: Case, benchmark: Any) -> None:
    problem, ours = gated(case)
    inputs = [tensor.detach() for tensor in problem.inputs]
    with torch.no_grad():
        out = benchmark(ours, *inputs)
    if problem.check is None:  # else it works in place, and was checked above
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda case: case.op, indirect=True)
def test_forward_with_backward(case: Case, benchmark: Any) -> None:
    problem, ours = gated(case)
    leaves = leaves_of(problem.inputs, problem.trained)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    gy = cotangent(ours(*leaves).detach())
    gradients = benchmark(lambda: torch.autograd.grad(ours(*leaves), wanted, gy))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
