"""The crop puts landmarks where FFHQ has them, whatever the turn, size or place of the face."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from guide_fast.align.crop import Square, cut_out, ffhq_square

FFHQ = np.array([(380, 480), (638, 478), (511, 646), (379, 739), (636, 743)]) / 1024


def turned(degrees: float, scale: float, move: tuple[float, float]) -> np.ndarray:
    """FFHQ's mean landmarks, turned about the centre, scaled to a side of `scale` px, moved."""
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (FFHQ - 0.5) @ rotation.T * scale + np.array(move)


@pytest.mark.parametrize("degrees", [0.0, 17.0, -40.0, 90.0])
@pytest.mark.parametrize("scale", [100.0, 1024.0, 3000.0])
def test_landmarks_land_on_the_ffhq_positions(degrees: float, scale: float) -> None:
    landmarks = turned(degrees, scale, (700.0, 400.0))
    placed = ffhq_square(landmarks).place(landmarks)
    assert np.abs(placed - FFHQ).max() * 1024 < 13  # the rule's numbers are for the detector's mean, not for this one


def test_whole_photo_is_cut_out_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (65, 65, 3), np.uint8)
    square = Square(np.array([32.5, 32.5]), np.array([32.5, 0.0]), np.array([0.0, 32.5]))
    cut = cut_out(Image.fromarray(pixels), square, 65)
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    assert (cut - expected).abs().max() < 1e-4


def test_turned_square_undoes_a_turned_photo() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    image = image.resize((64, 64), Image.Resampling.BICUBIC)
    square = Square(np.array([32.0, 32.0]), np.array([0.0, 32.0]), np.array([-32.0, 0.0]))
    cut = cut_out(image.transpose(Image.Transpose.ROTATE_270), square, 64)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1
    assert (cut - expected).abs().max() < 1e-4


def test_shrinking_is_antialiased() -> None:
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    square = Square(np.array([256.0, 256.0]), np.array([240.0, 0.0]), np.array([0.0, 240.0]))
    cut = cut_out(Image.fromarray(np.repeat(board[..., None], 3, axis=2)), square, 67)
    assert cut.abs().max() < 0.05


@pytest.mark.parametrize("centre", [(0.0, 0.0), (100.0, 30.0), (-500.0, 900.0)], ids=["corner", "edge", "outside"])
def test_outside_the_photo_its_colours_go_on(centre: tuple[float, float]) -> None:
    image = Image.new("RGB", (100, 120), (200, 100, 50))
    cut = cut_out(image, Square(np.array(centre), np.array([60.0, 10.0]), np.array([-10.0, 60.0])), 33)
    assert cut.isfinite().all()
    assert (cut - (torch.tensor([200, 100, 50]) / 127.5 - 1)[:, None, None]).abs().max() < 0.02


def test_coinciding_landmarks_give_a_finite_crop() -> None:
    square = ffhq_square(np.full((5, 2), 50.0))
    assert np.isfinite([*square.centre, *square.right, *square.down]).all()
