"""upfirdn2d as StyleGAN2 uses it: the skip images, feature maps, images made smaller."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.baselines.zero_insertion import zero_insertion
from guide_fast.bench.case import BOTH, EAGER, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal

OP = "upfirdn2d"
GOALS: tuple[Goal, ...] = ()
Settings = tuple[int, int, tuple[int, int, int, int]]  # up, down, padding
TAPS = (1.0, 3.0, 3.0, 1.0)
UP: Settings = (2, 1, (2, 1, 2, 1))
DOWN: Settings = (1, 2, (1, 1, 1, 1))
SHAPES = (
    ((8, 3, 512, 512), UP),
    ((5, 96, 128, 128), UP),
    ((8, 3, 1024, 1024), DOWN),
    ((8, 128, 256, 256), DOWN),
)
SMALL = (((2, 3, 6, 5), UP), ((2, 3, 6, 8), DOWN))


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Each shape in NHWC, then in NCHW."""
    for shape, settings in SMALL if smoke else SHAPES:
        for nhwc in (True, False):
            yield _case(shape, settings, torch.float32 if smoke else torch.float16, nhwc)


def _case(shape: tuple[int, ...], settings: Settings, dtype: torch.dtype, nhwc: bool) -> Case:
    n, c, h, w = shape
    up, down, _ = settings
    inputs, outputs = n * c * h * w, n * c * (h * up // down) * (w * up // down)
    flops = 2.0 * outputs * (len(TAPS) // up) ** 2
    moved = float((inputs + outputs) * dtype.itemsize)
    layout = "NHWC" if nhwc else "NCHW"
    described: dict[str, int | str] = {
        "batch": n,
        "channels": c,
        "height": h,
        "width": w,
        "up": up,
        "down": down,
        "layout": layout,
    }
    works = (Work(FORWARD, flops, moved), Work(BOTH, 2 * flops, 2 * moved))
    name = f"{n} x {c} x {h} x {w}, {'up' if up > 1 else 'down'} 2, {layout}"
    return Case(OP, name, ("StyleGAN2", "EG3D"), described, dtype, works, partial(_build, shape, settings, dtype, nhwc))


def _build(shape: tuple[int, ...], settings: Settings, dtype: torch.dtype, nhwc: bool, device: torch.device) -> Problem:
    up, down, padding = settings
    x = torch.randn(shape, generator=generator(1, device), device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if nhwc else x
    taps = torch.tensor(TAPS, device=device) / sum(TAPS)
    f, gain = torch.outer(taps, taps), float(up**2)

    def ours(x: Tensor, *, impl: str) -> Tensor:
        return kernels.upfirdn2d(x, f, up=up, down=down, padding=padding, gain=gain, impl=impl)

    def eager(x: Tensor) -> Tensor:
        return zero_insertion(x, f, up=up, down=down, padding=padding, gain=gain)

    return Problem((x,), ours, partial(ours, impl="reference"), {EAGER: eager}, {EAGER: eager})
