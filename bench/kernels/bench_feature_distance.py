"""feature_distance on the taps of two perceptual networks at 256 px."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import BOTH, EAGER, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal, average_speedup

OP = "feature_distance"
GOALS = (Goal("forward + backward at least 8x eager", 8.0, average_speedup(BOTH, EAGER)),)
# channels, size of each tap
TAPS = {
    "VGG16 at 256 px": ((64, 256), (128, 128), (256, 64), (512, 32), (512, 16)),
    "EfficientNet-Lite0 at 256 px": ((16, 128), (24, 64), (40, 32), (112, 16), (320, 8)),
}
SMALL = {"smoke": ((5, 6), (7, 3))}


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Half precision at batch 1, 5, 8; float32 at 5."""
    for batch in (2,) if smoke else (5, 1, 8):
        for network, taps in (SMALL if smoke else TAPS).items():
            for dtype in (torch.float32,) if smoke else (torch.float16, torch.float32):
                if dtype == torch.float16 or batch in (2, 5):
                    yield _case(network, taps, batch, dtype)


def _case(network: str, taps: tuple[tuple[int, int], ...], batch: int, dtype: torch.dtype) -> Case:
    elements = batch * sum(channels * size * size for channels, size in taps)
    read = 2.0 * elements * dtype.itemsize
    # backward: both read again, one gradient written
    works = (Work(FORWARD, 9.0 * elements, read), Work(BOTH, 20.0 * elements, 2.5 * read))
    shape = {"batch": batch, "taps": len(taps), "elements": elements}
    return Case(OP, f"{network}, batch {batch}", (network,), shape, dtype, works, partial(_build, taps, batch, dtype))


def _build(taps: tuple[tuple[int, int], ...], batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    count = len(taps)
    maps = [random(batch, channels, size, size).to(dtype) for channels, size in taps * 2]
    maps = [t.contiguous(memory_format=torch.channels_last) for t in maps]
    weights = [1.0 / count] * count

    def ours(*tensors: Tensor, impl: str) -> Tensor:
        return kernels.feature_distance(tensors[:count], tensors[count:], weights=weights, impl=impl).mean()

    return Problem.against_eager(maps, ours, trained=tuple(range(count)))
