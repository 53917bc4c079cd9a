"""FFHQ framing: the oriented square that five landmarks define, cut out of a photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]

# FFHQ's rule is for landmarks of another detector: half side = max(2 * eye distance, 1.8 * eye-to-mouth distance),
# centre a tenth of the way from eyes to mouth. MTCNN sees the mouth 12 px lower at 1024 px (mean of 10 FFHQ-framed
# photos), which these numbers take back: the mean crop of those photos is the whole photo.
EYES_TO_HALF_SIDE = 1.97
MOUTH_TO_HALF_SIDE = 1.75
CENTRE_TOWARDS_MOUTH = 0.1

MARGIN = 4  # px around the square, for the cubic filter
BLUR = 0.02  # sigma of the blur of made-up pixels, in sides of the square
BLUR_RAMP = 0.05  # distance from the photo's border at which they are fully blurred, in sides
FADE_RAMP = 0.5  # distance at which they have the photo's median colour, in sides


@dataclass(frozen=True)
class Square:
    """An oriented square in the photo: `centre`, half side to the right `right`, half side down `down`, [2] each."""

    centre: Floats
    right: Floats
    down: Floats

    @property
    def side(self) -> float:
        """Length of a side in pixels of the photo."""
        return 2 * float(np.linalg.norm(self.right))

    def place(self, points: NDArray[Any]) -> Floats:
        """Points of the photo [K, 2] -> fractions of the square [K, 2], (0, 0) its upper left corner."""
        axes = np.stack((self.right, self.down))
        return 0.5 + 0.5 * (points - self.centre) @ axes.T / np.square(axes).sum(axis=1)


def ffhq_square(landmarks: NDArray[Any]) -> Square:
    """Eyes, nose, corners of the mouth [5, 2], as seen in the image from left to right -> the square to cut out."""
    points = np.asarray(landmarks, dtype=np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    direction = eye_to_eye - _down_of(eye_to_mouth)  # the mean of the eyes' direction and the one across the face
    half = max(
        EYES_TO_HALF_SIDE * float(np.linalg.norm(eye_to_eye)), MOUTH_TO_HALF_SIDE * float(np.linalg.norm(eye_to_mouth))
    )
    right = direction * (half / max(float(np.linalg.norm(direction)), 1e-9))
    return Square(eyes + CENTRE_TOWARDS_MOUTH * eye_to_mouth, right, _down_of(right))


def cut_out(image: Image.Image, square: Square, resolution: int) -> Tensor:
    """The square of an RGB image, [3, resolution, resolution] in [-1, 1], antialiased.

    Outside the photo its reflection goes on, more and more blurred, then fading to the photo's median colour.
    """
    reach = np.abs(square.right) + np.abs(square.down)
    low, high = square.centre - reach - MARGIN, square.centre + reach + MARGIN
    zoom = min(1.0, resolution / square.side)
    margin = math.ceil(MARGIN / zoom)
    x0, y0 = (int(max(0, math.floor(edge - margin))) for edge in low)
    x1, y1 = (int(min(size, math.ceil(edge + margin))) for edge, size in zip(high, image.size, strict=True))
    x0, y0 = min(x0, image.width - 1), min(y0, image.height - 1)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    size = (max(1, round((x1 - x0) * zoom)), max(1, round((y1 - y0) * zoom)))
    region = image.resize(size, Image.Resampling.LANCZOS, box=(x0, y0, x1, y1))
    scale = np.array(size) / [x1 - x0, y1 - y0]
    pixels, offset = _extended(region, (low - [x0, y0]) * scale, (high - [x0, y0]) * scale, square.side * zoom)
    steps = (np.arange(resolution) + 0.5) / resolution * 2 - 1
    grid = (
        (square.centre - [x0, y0]) + steps[None, :, None] * square.right + steps[:, None, None] * square.down
    ) * scale + offset  # [R, R, 2], pixels of the extended region
    normalised = torch.from_numpy(grid * 2 / [pixels.shape[1], pixels.shape[0]] - 1).float()[None]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    cut = F.grid_sample(tensor, normalised, mode="bicubic", padding_mode="border", align_corners=False)
    return (cut[0] / 127.5 - 1).clamp(-1, 1)


def _extended(region: Image.Image, low: Floats, high: Floats, side: float) -> tuple[NDArray[Any], Floats]:
    """Pixels [H, W, 3] that cover low to high (x, y), with the offset of the region in them."""
    before = np.ceil(np.maximum(0, -low)).astype(int)
    after = np.ceil(np.maximum(0, high - region.size)).astype(int)
    pixels = np.asarray(region)
    if not (before.any() or after.any()):
        return pixels.copy(), np.zeros(2)
    median = np.median(pixels.reshape(-1, 3), axis=0)
    padded = np.pad(pixels, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="symmetric")
    blurred = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(BLUR * side))).astype(np.float32)
    columns, rows = (
        np.maximum(np.maximum(first - np.arange(count), np.arange(count) - (first + inside - 1)), 0)
        for first, inside, count in zip(before, region.size, padded.shape[1::-1], strict=True)
    )
    outside = np.hypot(rows[:, None], columns[None, :])[:, :, None] / side  # [H, W, 1] in sides of the square
    mixed = padded + (blurred - padded) * np.clip(outside / BLUR_RAMP, 0, 1)
    mixed = mixed + (median - mixed) * np.clip(outside / FADE_RAMP, 0, 1)
    return mixed.astype(np.float32), before.astype(np.float64)


def _down_of(right: Floats) -> Floats:
    """A quarter turn from right to down (y points down)."""
    return np.array([-right[1], right[0]])
