"""haar on the blocks of MobileStyleGAN."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from guide_fast import kernels
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal

OP = "haar"
GOALS: tuple[Goal, ...] = ()
LAYERS = ((12, 512), (128, 256), (512, 32))  # channels, size of the input
BATCHES = (1, 8)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Each layer in half precision, in float32."""
    for batch in (2,) if smoke else BATCHES:
        for channels, size in ((8, 5),) if smoke else LAYERS:
            for dtype in (torch.float32,) if smoke else (torch.float16, torch.float32):
                yield _case(batch, channels, size, dtype)


def _case(batch: int, channels: int, size: int, dtype: torch.dtype) -> Case:
    elements = batch * channels * size * size
    # style, three sums, a half; backward: the same back, the product for the style's gradient, x read again
    works = (
        Work(FORWARD, 5.0 * elements, 2.0 * elements * dtype.itemsize),
        Work(BOTH, 12.0 * elements, 5.0 * elements * dtype.itemsize),
    )
    described = {"batch": batch, "channels": channels, "size": size}
    build = partial(_build, batch, channels, size, dtype)
    return Case(
        OP, f"{size} px, {channels} channels, batch {batch}", ("MobileStyleGAN",), described, dtype, works, build
    )


def _build(batch: int, channels: int, size: int, dtype: torch.dtype, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    x = random(batch, channels, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    return Problem.against_eager((x, (1 + 0.3 * random(batch, channels)).to(dtype)), kernels.haar)
