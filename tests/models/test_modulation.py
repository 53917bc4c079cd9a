"""A modulation is affine in the style vector, whatever its gain; shifts fold into it."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded

from guide_fast.ltu.selective import SelectiveModulation
from guide_fast.models.modulation import Modulation


@pytest.fixture
def modulation() -> Modulation:
    found = Modulation(4, 6, 0.5, gain=0.25)
    with torch.no_grad():
        found.weight.copy_(seeded(6, 4, seed=0))
        found.bias.copy_(seeded(6, seed=1))
    return found


@torch.no_grad()
def test_style_has_gain_on_the_weight_and_scale_on_all(modulation: Modulation) -> None:
    w = seeded(3, 4, seed=2)
    found = modulation(w)
    assert found.shape == (3, 6, 1, 1)
    wanted = (0.25 * w @ modulation.weight.T + modulation.bias) * 0.5
    assert torch.allclose(found.flatten(1), wanted, atol=1e-6)


@torch.no_grad()
def test_linear_is_how_the_style_changes(modulation: Modulation) -> None:
    w, step = seeded(3, 4, seed=2), seeded(4, seed=3)
    change = (modulation(w + step) - modulation(w)).flatten(1)
    assert torch.allclose(change, modulation.linear(step).expand(3, -1) * modulation.scale, atol=1e-6)


@torch.no_grad()
def test_shift_folds_into_a_weight_with_gain(modulation: Modulation) -> None:
    selective = SelectiveModulation(modulation, torch.eye(4) + 0.1, seeded(4, seed=4))
    selective.shift.copy_(seeded(6, 4, seed=5))
    w = seeded(3, 4, seed=2)
    wanted = selective(w)
    assert not torch.allclose(wanted, modulation(w), atol=1e-2)
    weight, bias = selective.merged()
    modulation.weight.copy_(weight)
    modulation.bias.copy_(bias)
    assert torch.allclose(modulation(w), wanted, atol=1e-5)


@torch.no_grad()
def test_send_works_through_the_gain(modulation: Modulation) -> None:
    selective = SelectiveModulation(modulation, torch.eye(4), torch.zeros(4))
    w_u, w_t = seeded(4, seed=6), seeded(4, seed=7)
    selective.send(w_u, w_u / w_u.square().sum(), w_t - w_u)
    assert torch.allclose(selective(w_u[None]), modulation(w_t[None]), atol=1e-5)
