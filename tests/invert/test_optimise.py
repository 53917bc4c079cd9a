"""The descent's renderer agrees with the full resolution where it was asked; the rate ramps up and down."""

from __future__ import annotations

import torch

from guide_fast.invert.optimise import Renderer, _ramp
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def latents(generator: MobileStyleGAN) -> torch.Tensor:
    return generator.mapping(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(5)))


def test_without_a_head_the_approximation_is_exact(generator: MobileStyleGAN) -> None:
    renderer = Renderer(generator, 16)
    ws = latents(generator)[:1]
    assert renderer.low is None
    assert torch.equal(renderer.approximate(ws), renderer.exact(ws))


def test_exact_rendering_mends_the_head_there_and_nearby(generator: MobileStyleGAN) -> None:
    attach_head(generator, 16)
    renderer = Renderer(generator, 16)
    first, second = latents(generator).split(1)
    near = first + 0.02 * (second - first)

    def error(ws: torch.Tensor) -> float:
        return (renderer.approximate(ws) - Renderer(generator, 16).exact(ws)).square().mean().item()

    before = error(first), error(near)
    renderer.exact(first)
    assert error(first) < 0.7 * before[0] and error(near) < 0.7 * before[1]


def test_approximation_has_a_gradient(generator: MobileStyleGAN) -> None:
    attach_head(generator, 16)
    renderer = Renderer(generator, 16)
    ws = latents(generator)[:1].clone().requires_grad_()
    renderer.exact(ws)
    renderer.approximate(ws).square().sum().backward()
    assert ws.grad is not None and ws.grad.isfinite().all() and ws.grad.abs().sum() > 0


def test_rate_ramps_up_and_down() -> None:
    rates = [_ramp(i / 100) for i in range(1, 101)]
    assert rates[0] < rates[4] == rates[40] == 1
    assert rates[70:] == sorted(rates[70:], reverse=True)
    assert 0 < rates[-1] < 0.05
