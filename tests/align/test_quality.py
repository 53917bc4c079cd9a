"""Sharpness falls with blur; pose angles follow the landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from guide_fast.align.quality import NOSE_DEPTH, roll, sharpness, yaw


def head(turn: float, tilt: float = 0.0) -> np.ndarray:
    """Landmarks of a head model turned by `turn`, tilted by `tilt` degrees, seen from far away."""
    depth = 2 * NOSE_DEPTH
    model = np.array([(-1, 0, 0), (1, 0, 0), (0, 1, depth), (-0.9, 2, 0), (0.9, 2, 0)], dtype=float)
    a, b = np.deg2rad([turn, tilt])
    x = model[:, 0] * np.cos(a) + model[:, 2] * np.sin(a)
    points = np.stack([x, model[:, 1]], axis=1)
    return points @ np.array([[np.cos(b), np.sin(b)], [-np.sin(b), np.cos(b)]]) * 50 + 200


@pytest.mark.parametrize("turn", [-70.0, -30.0, 0.0, 12.0, 60.0])
@pytest.mark.parametrize("tilt", [-50.0, 0.0, 25.0])
def test_yaw_and_roll_are_those_of_the_head(turn: float, tilt: float) -> None:
    assert yaw(head(turn, tilt)) == pytest.approx(turn, abs=1e-6)
    assert roll(head(turn, tilt)) == pytest.approx(tilt, abs=1e-6)


def test_coinciding_landmarks_give_finite_angles() -> None:
    assert np.isfinite([yaw(np.zeros((5, 2))), roll(np.zeros((5, 2)))]).all()


def test_sharpness_falls_with_blur() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    values = []
    for radius in (0, 1, 2, 4):
        pixels = np.array(image.filter(ImageFilter.GaussianBlur(radius)))
        values.append(sharpness(torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1))
    assert values == sorted(values, reverse=True) and values[-1] < 12 < values[0]


def test_sharpness_ignores_the_border() -> None:
    image = torch.zeros(3, 256, 256)
    image[:, :30] = torch.rand(30, 256, generator=torch.Generator().manual_seed(0))
    assert sharpness(image) == pytest.approx(0, abs=1e-6)
