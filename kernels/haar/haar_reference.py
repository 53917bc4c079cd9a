"""Inverse Haar wavelet in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def haar_reference(
    x: Tensor,  # [N, 4C, H, W]
    style: Tensor | None,  # [N, 4C]
) -> Tensor:
    """[N, C, 2H, 2W], differentiable, any dtype."""
    if style is not None:
        x = x * style[:, :, None, None]
    ll, lh, hl, hh = x.unflatten(1, (-1, 4)).unbind(2)
    top = torch.stack((ll + lh + hl + hh, ll + lh - hl - hh), dim=-1)  # [N, C, H, W, 2]
    bottom = torch.stack((ll - lh + hl - hh, ll - lh - hl + hh), dim=-1)
    return torch.stack((top, bottom), dim=3).flatten(4, 5).flatten(2, 3) * 0.5
