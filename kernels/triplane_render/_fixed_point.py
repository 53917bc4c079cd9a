"""Sums that do not depend on their order: integers, scaled by what the largest term needs."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 40  # of the largest term; 2^22 such terms fit into 63 bits


def scale_of(largest: Tensor) -> Tensor:
    """A power of two, [1]: terms up to `largest` times it have at most BITS bits. 1 for a largest term of zero."""
    exponent = torch.ceil(torch.log2(largest))
    return torch.where(largest > 0, torch.exp2((BITS - exponent).clamp(-120, 120)), torch.ones_like(largest)) + (
        largest - largest  # a NaN, an infinity in one term makes every sum NaN
    )


def from_fixed(fixed: Tensor, scale: Tensor) -> Tensor:
    """The sums in float32."""
    return (fixed.double() / scale.double()).float()
