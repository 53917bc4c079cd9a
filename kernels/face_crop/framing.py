"""Framing: which part of an image a network sees, at which size, with which pixel values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from guide_fast.kernels._errors import KernelError

FILTERS = ("triangle", "area", "bilinear")
WHOLE = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Framing:
    """Crop `box`, resample it to `size` x `size`, then out[c] = (image[order[c]] - mean[c]) * scale[c].

    `box` is (y0, y1, x0, x1) in fractions of the image. `filter`: "triangle" (antialiased bilinear: as wide as an
    output pixel, plain bilinear when enlarging, reaching over the box's edge, not the image's), "area" (adaptive
    average pooling of the box rounded to pixels), "bilinear" (four neighbours, no antialiasing, as grid_sample with
    align_corners=False and border padding). With `resize_first` the whole image is averaged to that side before.
    Raises KernelError when a field has no meaning.
    """

    box: tuple[float, float, float, float]
    size: int
    filter: str = "triangle"
    resize_first: int | None = None
    order: tuple[int, int, int] = (0, 1, 2)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        y0, y1, x0, x1 = self.box
        if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
            raise KernelError(f"framing box {self.box} must satisfy 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1")
        if self.size < 1 or (self.resize_first is not None and self.resize_first < 1):
            raise KernelError(f"framing sizes {self.size}, {self.resize_first} must be at least 1")
        if self.filter not in FILTERS:
            raise KernelError(f"filter={self.filter!r} is not known; choose one of {', '.join(FILTERS)}")
        if sorted(self.order) != [0, 1, 2]:
            raise KernelError(f"order={self.order} is no permutation of (0, 1, 2)")
        if not all(self.scale):
            raise KernelError(f"scale={self.scale} has a zero; that channel would be lost")

    @classmethod
    def arcface(cls) -> Framing:
        """ArcFace as face generators use it, for FFHQ-framed images in [-1, 1]: 256 px, rows 35:223, columns 32:220.

        Source: pixel2style2pixel (arXiv 2008.00951), also GUIDE.
        """
        box = (35 / 256, 223 / 256, 32 / 256, 220 / 256)
        return cls(box, 112, filter="area", resize_first=256)

    @classmethod
    def dlib(
        cls, box: tuple[float, float, float, float], mean: Sequence[float] = (122.782, 117.001, 104.298)
    ) -> Framing:
        """dlib's face recognition ResNet, for images in [-1, 1]: 150 px, (RGB - mean) / 256 with RGB in [0, 255]."""
        return cls(box, 150).for_pixels(mean, 1 / 256)

    @classmethod
    def faceres(cls, box: tuple[float, float, float, float]) -> Framing:
        """FaceRes, for images in [-1, 1]: 224 px, BGR - mean with BGR in [0, 255]."""
        return cls(box, 224, order=(2, 1, 0)).for_pixels((103.939, 116.779, 123.68), 1.0)

    @classmethod
    def mobileface(cls, box: tuple[float, float, float, float]) -> Framing:
        """MobileFace, for images in [-1, 1]: 112 px, RGB in [0, 255]."""
        return cls(box, 112).for_pixels((0.0, 0.0, 0.0), 1.0)

    def for_pixels(self, mean: Sequence[float], scale: float) -> Framing:
        """This framing of images in [-1, 1] for a network that takes (pixel - mean) * scale, pixel in [0, 255]."""
        moved = tuple((m - 127.5) / 127.5 for m in mean)
        return Framing(self.box, self.size, self.filter, self.resize_first, self.order, moved, (127.5 * scale,) * 3)

    def matrices(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The resampling of rows [size, height] and columns [size, width] as dense float64 matrices."""
        y0, y1, x0, x1 = self.box
        return self._axis(y0, y1, height), self._axis(x0, x1, width)

    def _axis(self, low: float, high: float, pixels: int) -> Tensor:
        if self.resize_first is None:
            return _resample(low, high, pixels, self.size, self.filter)
        whole = _resample(0.0, 1.0, pixels, self.resize_first, "area")
        return _resample(low, high, self.resize_first, self.size, self.filter) @ whole


def _resample(low: float, high: float, pixels: int, size: int, kind: str) -> Tensor:
    """[size, pixels] float64, rows sum to 1."""
    if kind == "area":
        first, last = round(low * pixels), max(round(high * pixels), round(low * pixels) + 1)
        weights = torch.zeros(size, pixels, dtype=torch.float64)
        for i in range(size):
            start = first + i * (last - first) // size
            stop = first - (-(i + 1) * (last - first) // size)
            weights[i, start:stop] = 1 / (stop - start)
        return weights
    scale = (high - low) * pixels / size  # input pixels of one output pixel
    centres = low * pixels + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    if kind == "bilinear":
        centres, scale = centres.clamp(0.5, pixels - 0.5), 1.0
    at = torch.arange(pixels, dtype=torch.float64) + 0.5
    weights = (1 - (at[None, :] - centres[:, None]).abs() / max(scale, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Axis:
    """A banded matrix by rows: row i has weights[:, i] from column start[i] on."""

    start: Tensor  # [rows] int32
    weights: Tensor  # [taps, rows] float32; zero past a row's last tap

    @property
    def taps(self) -> int:
        """Weights of a row."""
        return len(self.weights)


@lru_cache(maxsize=64)
def axes(
    framing: Framing, height: int, width: int, device: torch.device, *, transposed: bool = False
) -> tuple[Axis, Axis]:
    """Rows, then columns of the resampling, or of its transpose, on `device`; kept for later calls."""
    rows, columns = (_banded(m.T if transposed else m, device) for m in framing.matrices(height, width))
    return rows, columns


def _banded(matrix: Tensor, device: torch.device) -> Axis:
    used = matrix != 0
    columns = torch.arange(matrix.shape[1])
    first = torch.where(used.any(dim=1), used.int().argmax(dim=1), 0)
    last = torch.where(used, columns, -1).amax(dim=1)
    taps = max(1, int((last - first).max()) + 1)
    start = first.clamp(max=matrix.shape[1] - taps)  # a band never leaves the matrix: kernels need no second mask
    weights = matrix.gather(1, start[:, None] + torch.arange(taps)[None, :]).T
    with torch.inference_mode(False):  # kept for later calls, whose autograd refuses inference tensors
        return Axis(start.to(device, torch.int32), weights.to(device, torch.float32).contiguous())
