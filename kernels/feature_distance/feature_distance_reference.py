"""feature_distance in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def feature_distance_reference(
    taps_a: Sequence[Tensor],  # each [N, C, H, W]
    taps_b: Sequence[Tensor],  # each [N, C, H, W] or [1, C, H, W]
    *,
    weights: Sequence[Tensor | float] | None,  # each [C] or a number
    normalised_b: bool,
    eps: float,
) -> Tensor:
    """Sum over taps of the weighted squared difference of unit features, averaged over space: [N], differentiable."""
    distances = []
    for i, (a, b) in enumerate(zip(taps_a, taps_b, strict=True)):
        weight = 1.0 if weights is None else weights[i]
        if a.dtype in (torch.float16, torch.bfloat16):
            a, b = a.float(), b.float()
        difference = (_unit(a, eps) - (b if normalised_b else _unit(b, eps))).square()
        if isinstance(weight, Tensor):
            distances.append((difference * weight.to(a)[:, None, None]).sum(dim=1).mean(dim=(1, 2)))
        else:
            distances.append(difference.sum(dim=1).mean(dim=(1, 2)) * weight)
    return torch.stack(distances).sum(dim=0)


def _unit(tap: Tensor, eps: float) -> Tensor:
    return tap * torch.rsqrt(tap.square().sum(dim=1, keepdim=True) + eps)
