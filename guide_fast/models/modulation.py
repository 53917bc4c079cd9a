"""The affine map from a style vector to the scales of a layer's channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Modulation(nn.Module):
    """Per-channel scales (gain * W w + b) * scale: [N, D] -> [N, C, 1, 1].

    `gain` is the equalised learning rate of the weight alone; `scale` multiplies the whole. Whoever moves this map from
    outside works with `linear`, which has both generators' weights in the same unit.
    """

    def __init__(self, w_dim: int, channels: int, scale: float = 1.0, *, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, w_dim))
        self.bias = nn.Parameter(torch.empty(channels))
        self.scale = scale
        self.gain = gain

    def forward(self, w: Tensor) -> Tensor:
        """Scales [N, C, 1, 1]."""
        w = w if self.gain == 1 else w * self.gain  # the vector is smaller than the weight
        return (F.linear(w, self.weight, self.bias) * self.scale)[:, :, None, None]

    def linear(self, w: Tensor) -> Tensor:
        """The part before `scale` that depends on the style, gain * W w: [..., D] -> [..., C]."""
        return F.linear(w * self.gain, self.weight)
