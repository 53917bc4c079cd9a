"""separable_conv2d on the layers of MobileStyleGAN."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal

OP = "separable_conv2d"
GOALS: tuple[Goal, ...] = ()
LAYERS = ((512, 64, 64), (256, 128, 128), (64, 512, 512), (16, 512, 512))  # size, input channels, output channels
BATCHES = (1, 8)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Each layer in half precision, in float32 with tf32 products allowed."""
    for batch in (2,) if smoke else BATCHES:
        for layer in ((5, 8, 12),) if smoke else LAYERS:
            for dtype in (torch.float32,) if smoke else (torch.float16, torch.float32):
                yield _case(batch, layer, dtype, tf32=not smoke and dtype == torch.float32)


def _case(batch: int, layer: tuple[int, int, int], dtype: torch.dtype, *, tf32: bool) -> Case:
    size, channels, out = layer
    pixels = batch * size * size
    flops = 2.0 * pixels * channels * (9 + out)
    moved = float((pixels * (channels + out) + channels * (9 + out)) * dtype.itemsize)
    works = (Work(FORWARD, flops, moved), Work(BOTH, 3 * flops, 3 * moved))
    described = {"batch": batch, "size": size, "in": channels, "out": out}
    name = f"{size} px, {channels} to {out}, batch {batch}{', tf32' if tf32 else ''}"
    build = partial(_build, batch, layer, dtype)
    return Case(OP, name, ("MobileStyleGAN",), described, dtype, works, build, tf32)


def _build(batch: int, layer: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Problem:
    size, channels, out = layer
    random = partial(torch.randn, generator=generator(1, device), device=device)
    x = random(batch, channels, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    depthwise = (random(channels, 1, 3, 3) / 3).to(dtype)
    pointwise = (random(out, channels, 1, 1) / channels**0.5).to(dtype)
    style, bias = (1 + 0.3 * random(batch, channels)).to(dtype), (0.1 * random(out)).to(dtype)
    noise = (0.1 * random(1, 1, size, size)).to(dtype)

    def ours(x: Tensor, depthwise: Tensor, pointwise: Tensor, style: Tensor, bias: Tensor, *, impl: str) -> Tensor:
        return kernels.separable_conv2d(x, depthwise, pointwise, style, bias=bias, noise=noise.to(x.dtype), impl=impl)

    return Problem.against_eager((x, depthwise, pointwise, style, bias), ours)
