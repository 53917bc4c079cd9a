"""Observations depend on the latents alone, not on how they are batched."""

from __future__ import annotations

import pytest
import torch

from guide_fast.evaluate.observe import counter, observe
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def test_batching_changes_nothing_but_rounding(base: MobileStyleGAN, judge: IdentityNetwork) -> None:
    ws = base.mapping(torch.randn(7, base.z_dim, generator=torch.Generator().manual_seed(0)))
    ticks: list[int] = []
    one, many = (
        observe(base, ws, {"judge": judge}, batch=batch, thumbnail=16, tick=lambda: ticks.append(1)) for batch in (1, 3)
    )
    torch.testing.assert_close(one.embeddings["judge"], many.embeddings["judge"], rtol=1e-4, atol=1e-5)
    assert one.thumbnails.shape == (7, 3, 16, 16)
    assert len(ticks) == 14


def test_images_are_clamped_before_a_network_sees_them(judge: IdentityNetwork, base: MobileStyleGAN) -> None:
    with torch.no_grad():
        base.to_img.bias.fill_(1e3)
    ws = base.mapping(torch.ones(1, base.z_dim))
    seen = observe(base, ws, {"judge": judge}, batch=1, thumbnail=4, tick=lambda: None)
    image = base.synthesis(ws).image
    assert image.abs().max() > 2
    torch.testing.assert_close(seen.embeddings["judge"], judge.embed(image.clamp(-1, 1)))


def test_no_gradient_is_kept(judge: IdentityNetwork, base: MobileStyleGAN) -> None:
    base.requires_grad_(True)
    ws = base.mapping(torch.ones(1, base.z_dim))
    seen = observe(base, ws, {"judge": judge}, batch=1, thumbnail=4, tick=lambda: None)
    assert not seen.embeddings["judge"].requires_grad


def test_counter_reports_nothing_done_first_then_every_unit() -> None:
    calls: list[tuple[str, int, int]] = []
    tick = counter(lambda stage, done, total, values: calls.append((stage, done, total)), "evaluate", 2)
    tick()
    tick()
    assert calls == [("evaluate", 0, 2), ("evaluate", 1, 2), ("evaluate", 2, 2)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_networks_may_live_on_another_device(judge: IdentityNetwork, base: MobileStyleGAN) -> None:
    ws = base.mapping(torch.ones(2, base.z_dim))
    on_cpu = observe(base, ws, {"judge": judge}, batch=2, thumbnail=4, tick=lambda: None)
    mixed = observe(base.cuda(), ws.cuda(), {"judge": judge}, batch=2, thumbnail=4, tick=lambda: None)
    torch.testing.assert_close(on_cpu.embeddings["judge"], mixed.embeddings["judge"], rtol=1e-2, atol=1e-2)
