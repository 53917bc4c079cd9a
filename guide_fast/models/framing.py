"""Framing: a fixed differentiable crop from FFHQ-framed images to a network's input size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from guide_fast.errors import UsageError


class Box(NamedTuple):
    """A crop in fractions of the image: 0 is the upper or left edge of the first pixel, 1 the far edge of the last."""

    y0: float
    y1: float
    x0: float
    x1: float


class _Axis(NamedTuple):
    start: int  # first input pixel that a weight touches
    stop: int
    weights: Tensor  # [out, stop - start], rows sum to 1


class Framing(nn.Module):
    """Crop a box out of square images and resample it to `size` x `size`: out = A_y @ image @ A_x^T.

    `box` is (y0, y1, x0, x1) in fractions of the image, inside [0, 1]; raises UsageError otherwise. The filter is a
    triangle as wide as one output pixel (plain bilinear when enlarging), so the crop shows the same face at every
    resolution R. The matrices are built in float64 once for each R, dtype and device, then kept.
    """

    def __init__(self, box: Box | tuple[float, float, float, float], size: int) -> None:
        super().__init__()
        self.box = Box(*box)
        self.size = size
        if not (0 <= self.box.y0 < self.box.y1 <= 1 and 0 <= self.box.x0 < self.box.x1 <= 1):
            raise UsageError(f"framing box {tuple(self.box)} must satisfy 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1")
        if size < 1:
            raise UsageError(f"framing size {size} must be at least 1")
        self._axes: dict[tuple[int, torch.dtype, torch.device], tuple[_Axis, _Axis]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] of any R -> [N, 3, size, size] in the same range and dtype; UsageError if not square."""
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise UsageError(f"framing needs square images [N, 3, R, R], got shape {tuple(images.shape)}")
        rows, columns = self._axes_for(images)
        patch = images[:, :, rows.start : rows.stop, columns.start : columns.stop]
        return rows.weights @ (patch @ columns.weights.mT)

    def _axes_for(self, images: Tensor) -> tuple[_Axis, _Axis]:
        resolution = images.shape[-1]
        key = (resolution, images.dtype, images.device)
        if key not in self._axes:
            with torch.inference_mode(False):  # kept for later calls, whose autograd refuses inference tensors
                self._axes[key] = (
                    _axis(self.box.y0, self.box.y1, self.size, resolution, images),
                    _axis(self.box.x0, self.box.x1, self.size, resolution, images),
                )
        return self._axes[key]

    def extra_repr(self) -> str:
        return f"box={tuple(self.box)}, size={self.size}"


def _axis(low: float, high: float, size: int, resolution: int, like: Tensor) -> _Axis:
    """The triangle filter along one axis, cut to the input pixels it touches and normalised at the border."""
    scale = (high - low) * resolution / size  # input pixels per output pixel
    centres = low * resolution + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    pixels = torch.arange(resolution, dtype=torch.float64) + 0.5
    weights = (1 - (pixels[None, :] - centres[:, None]).abs() / max(scale, 1.0)).clamp(min=0)  # [out, R]
    weights = weights / weights.sum(dim=1, keepdim=True)
    touched = torch.nonzero(weights.sum(dim=0))[:, 0]
    start, stop = int(touched[0]), int(touched[-1]) + 1
    return _Axis(start, stop, weights[:, start:stop].to(dtype=like.dtype, device=like.device).contiguous())
