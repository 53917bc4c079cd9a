"""Sums that do not depend on their order: integers, scaled by what the largest term needs."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 40  # of the largest term; 2^22 such terms fit into 63 bits


def scale_of(largest: Tensor) -> Tensor:
    """A power of two, [1]: terms up to the maximum of `largest` times it have at most BITS bits; 1 if all are zero."""
    top = largest.amax(0, keepdim=True)
    scale = torch.exp2((BITS - torch.ceil(torch.log2(top))).clamp(-120, 120))
    return torch.where(top > 0, scale, 1) + (top - top)  # a NaN, an infinity in one term makes every sum NaN


def from_fixed(fixed: Tensor, scale: Tensor) -> Tensor:
    """The sums in float32."""
    return (fixed.double() / scale.double()).float()
