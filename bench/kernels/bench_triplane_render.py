"""triplane_render with EG3D's sizes: 48 + 48 samples on each of 128 x 128 rays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal, average_speedup, memory_ratio

OP = "triplane_render"
GRID_SAMPLE = "grid_sample"  # every sample in memory: what the reference implementation does
RADIUS, FOV = 2.7, 18.837
CHANNELS, HIDDEN, COLOURS, SAMPLES = 32, 64, 32, 48
POINT_FLOPS = 2 * (CHANNELS * HIDDEN + HIDDEN * (1 + COLOURS)) + 2 * 3 * 4 * CHANNELS  # decoder, 12 texels

GOALS = (
    Goal("forward + backward at least 5x grid_sample", 5.0, average_speedup(BOTH, GRID_SAMPLE)),
    Goal("at most 1/10 of its memory", 0.1, memory_ratio(BOTH, GRID_SAMPLE), at_most=True),
)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Batch 1, 5, 8 in half precision, one in float32."""
    if smoke:
        yield _case(1, 6, 16, 8, torch.float32)
        return
    for batch in (1, 5, 8):
        yield _case(batch, 128, 256, SAMPLES, torch.float16)
        if batch == 1:
            yield _case(batch, 128, 256, SAMPLES, torch.float32)


def _case(batch: int, rays: int, size: int, samples: int, dtype: torch.dtype) -> Case:
    points = batch * rays * rays * 2 * samples
    planes, out = batch * 3 * CHANNELS * size * size, batch * rays * rays * COLOURS
    moved = float((planes + out) * dtype.itemsize + batch * rays * rays * 24)
    # backward without stored samples: once more forward, two products for each; planes read, their gradient written
    works = (
        Work(FORWARD, float(points * POINT_FLOPS), moved),
        Work(BOTH, 3.0 * points * POINT_FLOPS, 2 * moved + planes * dtype.itemsize),
    )
    shape = {"batch": batch, "rays": rays * rays, "planes": size, "samples": 2 * samples}
    name = f"{rays} x {rays} rays, {samples} + {samples} samples, batch {batch}"
    return Case(OP, name, ("EG3D-512",), shape, dtype, works, partial(_build, batch, rays, size, samples, dtype))


def _build(batch: int, rays: int, size: int, samples: int, dtype: torch.dtype, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    # smooth planes, as a trained backbone makes them
    coarse = random(batch * 3, CHANNELS, size // 8, size // 8)
    planes = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").to(dtype)
    planes = planes.reshape(batch, 3, CHANNELS, size, size)
    decoder = (
        random(HIDDEN, CHANNELS) / CHANNELS**0.5,
        0.1 * random(HIDDEN),
        random(1 + COLOURS, HIDDEN) / HIDDEN**0.5,
        0.1 * random(1 + COLOURS),
    )
    origins, directions = _camera(batch, rays, device)

    def ours(planes: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, impl: str) -> Any:
        return kernels.triplane_render(
            planes,
            origins,
            directions,
            (w1, b1, w2, b2),
            depth_resolution=samples,
            depth_resolution_importance=samples,
            impl=impl,
        )[0]

    return Problem.against_eager((planes, *(t.to(dtype) for t in decoder)), ours, name=GRID_SAMPLE)


def _camera(batch: int, rays: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Origins, directions [N, R, 3] of a frontal camera."""
    edge = math.tan(math.radians(FOV) / 2)
    place = (torch.arange(rays, device=device) + 0.5) / rays * 2 - 1
    y, x = torch.meshgrid(place * edge, place * edge, indexing="ij")
    directions = torch.stack([x, -y, -torch.ones_like(x)], -1).reshape(1, -1, 3)
    directions = (directions / directions.norm(dim=-1, keepdim=True)).expand(batch, -1, 3).contiguous()
    return torch.tensor([0.0, 0.0, RADIUS], device=device).expand_as(directions).contiguous(), directions
