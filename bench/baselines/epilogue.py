"""What follows the convolution in the un-fused formulations: FIR, noise, bias, activation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def fir(z: Tensor, kernel: int) -> Tensor:
    """[1, 3, 3, 1] / 4 along both axes as one depthwise convolution, [N, C, 2H + k - 2, ...] -> [N, C, 2H, 2W]."""
    taps = torch.tensor(TAPS, dtype=z.dtype, device=z.device) / 4
    channels = z.shape[1]
    weight = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv2d(z, weight, padding=1 if kernel == 3 else 2, groups=channels)


def fir_by_slices(z: Tensor, kernel: int) -> Tensor:
    """The same from shifted sums, which a compiler fuses."""
    z = F.pad(z, [1 if kernel == 3 else 2] * 4)
    z = (z[..., :-3] + z[..., 3:]) * 0.25 + (z[..., 1:-2] + z[..., 2:-1]) * 0.75
    return (z[..., :-3, :] + z[..., 3:, :]) * 0.25 + (z[..., 1:-2, :] + z[..., 2:-1, :]) * 0.75


def eager_epilogue(y: Tensor, noise: Tensor | None, bias: Tensor | None, *, lrelu: bool) -> Tensor:
    """(y + noise + bias), leaky ReLU, gain sqrt(2): one pass over memory each."""
    if noise is not None:
        y = y + noise
    if bias is not None:
        y = y + bias[:, None, None]
    return F.leaky_relu(y, 0.2) * math.sqrt(2) if lrelu else y
