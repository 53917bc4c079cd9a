"""The gate lets a correct contender pass, names what is wrong with another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guide_fast.bench.case import Problem
from guide_fast.bench.gate import Gate


def product(a: Tensor, b: Tensor) -> Tensor:
    return torch.tanh(a @ b)


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def problem(request: pytest.FixtureRequest) -> Problem:
    random = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(24, 24, generator=random).mul(0.3).to(request.param) for _ in range(2))
    return Problem(inputs, lambda *t, impl: product(*t), product, {})


def test_correct_contender_passes(problem: Problem) -> None:
    gate = Gate(problem, tf32=False)
    assert gate.complaint(product) is None
    assert gate.complaint(lambda a, b: torch.tanh((b.T @ a.T).T), baseline=True) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda a, b: product(a, b) * 1.2, "the output has a"),
        (lambda a, b: product(a, b)[:1], "shape"),
        (lambda a, b: product(a, b) / 0, "not finite"),
        (lambda a, b: product(a.detach() + 0 * a, b), "gradient of input 0"),
        (lambda a, b: product(a, b.detach() + 0 * b), "gradient of input 1"),
    ],
)
def test_wrong_contender_is_named(problem: Problem, wrong: object, said: str) -> None:
    gate = Gate(problem, tf32=False)
    for baseline in (False, True):
        assert said in (gate.complaint(wrong, baseline=baseline) or "")


def test_one_unwritten_element_shows(problem: Problem) -> None:
    def forgetful(a: Tensor, b: Tensor) -> Tensor:
        keep = torch.ones(24, 24, dtype=a.dtype)
        keep[7, 5] = float("nan")
        return product(a, b) * keep

    def one_zero(a: Tensor, b: Tensor) -> Tensor:
        keep = torch.ones(24, 24, dtype=a.dtype)
        keep[product(a, b).detach().abs().argmax() // 24, product(a, b).detach().abs().argmax() % 24] = 0
        return product(a, b) * keep

    gate = Gate(problem, tf32=False)
    assert "1 elements that are not finite" in (gate.complaint(forgetful) or "")
    assert "largest error" in (gate.complaint(one_zero) or "")


def test_only_trained_inputs_have_gradients(problem: Problem) -> None:
    only_first = Problem(problem.inputs, problem.ours, product, {}, trained=(1,))
    gate = Gate(only_first, tf32=False)
    assert gate.complaint(lambda a, b: product(a.detach(), b)) is None
    assert "gradient of input 1" in (gate.complaint(lambda a, b: product(a, 1.5 * b - 0.5 * b.detach())) or "")
