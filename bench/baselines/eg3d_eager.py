"""EG3D's image un-fused: backbone, renderer, super-resolution as plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.bench.baselines.grid_sample_render import grid_sample_render
from guide_fast.bench.baselines.stylegan2_eager import eager_block, eager_synthesis, part

# input px, factor of the first block; the second one doubles
ENLARGING = {"2X": (64, 1), "4X": (128, 1), "8X": (128, 2), "8XDC": (128, 2)}


def eager_eg3d(
    weights: Mapping[str, Tensor],  # of guide_fast's EG3D, by its parameter and buffer names, resampling filters apart
    decoder: tuple[Tensor, Tensor, Tensor, Tensor],  # w1, b1, w2, b2 with the learning-rate gains folded in
    ws: Tensor,  # [N, L, D]
    origins: Tensor,  # [N, r^2, 3]
    directions: Tensor,  # [N, r^2, 3]
    *,
    kind: str,
    clamp: float | None,
    half: bool,
    start: float,
    end: float,
    samples: int,
) -> Tensor:
    """Image [N, 3, R, R] of a backbone in the skip architecture; `half` lets the super-resolution use float16."""
    planes = eager_synthesis(part(weights, "backbone.synthesis."), ws, architecture="skip", clamp=None)
    features = grid_sample_render(
        planes.unflatten(1, (3, -1)),
        origins,
        directions,
        decoder,
        start=start,
        end=end,
        coarse=samples,
        fine=samples,
    )
    side = round(features.shape[1] ** 0.5)
    features = features.unflatten(1, (side, side)).permute(0, 3, 1, 2).contiguous()
    return eager_enlarging(part(weights, "superresolution."), features, ws, kind=kind, clamp=clamp, half=half)


def eager_enlarging(
    weights: Mapping[str, Tensor],  # of block0, block1
    features: Tensor,  # [N, C, R, R], the first three channels are the image
    ws: Tensor,  # [N, L, D]
    *,
    kind: str,
    clamp: float | None,
    half: bool = False,
    antialias: bool = True,
) -> Tensor:
    """Image [N, 3, R', R'] of one of the published super-resolutions, without noise."""
    size, first_up = ENLARGING[kind]
    x, image = features, features[:, :3]
    if x.shape[-1] != size:
        x, image = (
            F.interpolate(t, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)
            for t in (x, image)
        )
    last = torch.stack([ws[:, -1]] * 3, 1)
    options: dict[str, Any] = {"noise": False, "clamp": clamp, "half": half}
    x, larger = eager_block(part(weights, "block0."), x, image, last, up=first_up, **options)
    _, larger = eager_block(part(weights, "block1."), x, larger, last, **options)
    assert larger is not None
    return larger
