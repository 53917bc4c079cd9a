"""Frozen networks stay frozen; the gradient check that the network tests rely on can fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from guide_fast.models.frozen import FrozenNetwork, freeze


class Small(FrozenNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.settle()


def test_freeze_turns_off_gradients_and_training_mode() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    assert freeze(module) is module
    assert not module.training and not module[1].training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_gradient_flows_through_a_frozen_network_to_its_input() -> None:
    x = torch.ones(1, 3, requires_grad=True)
    Small().layers(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_frozen_network_stays_in_eval_mode_when_its_parent_trains() -> None:
    parent = nn.Sequential(Small(), nn.Dropout())
    parent.train()
    assert parent[1].training
    assert not any(module.training for module in parent[0].modules())


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.square().sum()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * torch.ones(2, 3, dtype=torch.float64)


def test_assert_gradient_accepts_a_right_gradient(assert_gradient: Callable[..., None]) -> None:
    assert_gradient(lambda x: x.square().sum(), torch.randn(2, 3))


def test_assert_gradient_rejects_a_wrong_gradient(assert_gradient: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="slope"):
        assert_gradient(WrongGradient.apply, torch.full((2, 3), 7.0))


def test_assert_gradient_rejects_a_function_that_ignores_its_input(assert_gradient: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="depend"):
        assert_gradient(lambda x: (0 * x).sum(), torch.randn(2, 3))
