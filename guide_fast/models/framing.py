"""Framing: a fixed differentiable crop from FFHQ-framed images to a network's input size."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor, nn

from guide_fast import kernels
from guide_fast.errors import UsageError


class Box(NamedTuple):
    """A crop in fractions of the image: 0 is the upper or left edge of the first pixel, 1 the far edge of the last."""

    y0: float
    y1: float
    x0: float
    x1: float


# EG3D shows the same face nearer to the upper left than FFHQ's framing, at the same size; measured on aligned photos
EG3D_DOWN, EG3D_RIGHT = 0.0735, 0.025  # fractions of the image


def ffhq_framed(images: Tensor) -> Tensor:
    """EG3D-framed images [N, 3, R, R], moved to where FFHQ-framed ones have the face; new rows repeat the edge.

    Frozen networks crop FFHQ-framed images. The shift is rounded to whole pixels; it passes gradients.
    """
    down, right = round(EG3D_DOWN * images.shape[-2]), round(EG3D_RIGHT * images.shape[-1])
    padded = nn.functional.pad(images, (right, 0, down, 0), mode="replicate")
    return padded[..., : images.shape[-2], : images.shape[-1]]


def eg3d_framed(images: Tensor) -> Tensor:
    """FFHQ-framed images [N, 3, R, R], moved to where EG3D-framed ones have the face; new rows repeat the edge.

    The way back of `ffhq_framed`.
    """
    down, right = round(EG3D_DOWN * images.shape[-2]), round(EG3D_RIGHT * images.shape[-1])
    padded = nn.functional.pad(images, (0, right, 0, down), mode="replicate")
    return padded[..., down:, right:]


class Framing(nn.Module):
    """Crop a box out of square images and resample it to `size` x `size`, in one operation (`kernels.face_crop`).

    `box` is (y0, y1, x0, x1) in fractions of the image, inside [0, 1]; raises UsageError otherwise. The filter is a
    triangle as wide as one output pixel (plain bilinear when enlarging), so the crop shows the same face at every
    resolution R. With `pixels` images in [-1, 1] come out in [0, 255], as networks trained on photos take them.
    """

    def __init__(self, box: Box | tuple[float, float, float, float], size: int, *, pixels: bool = False) -> None:
        super().__init__()
        self.box = Box(*box)
        self.size = size
        try:
            framing = kernels.Framing(self.box, size)
        except kernels.KernelError as error:
            raise UsageError(str(error)) from None
        self._framing = framing.for_pixels((0.0, 0.0, 0.0), 1.0) if pixels else framing

    @classmethod
    def arcface(cls) -> Self:
        """ArcFace's crop as face generators use it: averaged to 256 px, rows 35:223, columns 32:220, 112 px.

        Images in [-1, 1] come out in [0, 255]. Source: pixel2style2pixel (arXiv 2008.00951).
        """
        published = kernels.Framing.arcface()
        framing = cls(published.box, published.size, pixels=True)
        framing._framing = published.for_pixels((0.0, 0.0, 0.0), 1.0)
        return framing

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] of any R -> [N, 3, size, size] in the same dtype; UsageError if not square."""
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise UsageError(f"framing needs square images [N, 3, R, R], got shape {tuple(images.shape)}")
        return kernels.face_crop(images, self._framing)

    def extra_repr(self) -> str:
        return f"box={tuple(self.box)}, size={self.size}"
