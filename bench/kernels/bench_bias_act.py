"""bias_act on feature maps of StyleGAN2."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from guide_fast import kernels
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal

OP = "bias_act"
GOALS: tuple[Goal, ...] = ()
SHAPES = ((1, 32, 1024, 1024), (8, 128, 256, 256), (5, 512, 64, 64), (1, 512, 16, 16))
SMALL = ((2, 5, 7, 3),)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """NHWC in half precision; NCHW in float32."""
    for shape in SMALL if smoke else SHAPES:
        for dtype, nhwc in ((torch.float16, True), (torch.float32, False)):
            yield _case(shape, torch.float32 if smoke else dtype, nhwc)


def _case(shape: tuple[int, int, int, int], dtype: torch.dtype, nhwc: bool) -> Case:
    n, c, h, w = shape
    elements, size = n * c * h * w, dtype.itemsize
    works = (Work(FORWARD, 3 * elements, 2 * elements * size), Work(BOTH, 6 * elements, 5 * elements * size))
    layout = "NHWC" if nhwc else "NCHW"
    name = f"{n} x {c} x {h} x {w}, {layout}"
    described: dict[str, int | str] = {"batch": n, "channels": c, "height": h, "width": w, "layout": layout}
    return Case(OP, name, ("StyleGAN2",), described, dtype, works, partial(_build, shape, dtype, nhwc))


def _build(shape: tuple[int, ...], dtype: torch.dtype, nhwc: bool, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    x = random(shape).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if nhwc else x
    return Problem.against_eager((x, random(shape[1]).to(dtype)), kernels.bias_act)
