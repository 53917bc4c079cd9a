"""Pixels are rounded as the pipeline rounds them; a PNG holds them all."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from guide_fast.serve.pictures import pixels, png


def test_pixels_are_those_of_the_pipeline_and_the_image_stays() -> None:
    image = np.random.default_rng(0).uniform(-1.3, 1.3, (3, 40, 40)).astype(np.float32)
    image[0, 0, :3] = (-1, 0, 1)
    kept = image.copy()
    wanted = torch.from_numpy(image).clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(image), wanted) and np.array_equal(image, kept)
    assert {0, 255} <= {*wanted.ravel().tolist()}


def test_png_holds_every_pixel() -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (3, 16, 16)).astype(np.float32)
    read = np.asarray(Image.open(io.BytesIO(png(image))))
    assert np.array_equal(read, pixels(image))
