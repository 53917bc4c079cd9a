"""The crop is the right place at every resolution, with an exact gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.framing import EG3D_DOWN, EG3D_RIGHT, Box, Framing, eg3d_framed, ffhq_framed

WHOLE = Box(0, 1, 0, 1)
FACE = Box(0.21, 0.83, 0.13, 0.75)


def ramps(resolution: int) -> Tensor:
    """Channels that hold the row position, the column position, one: [1, 3, R, R]."""
    centres = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution
    rows = centres[:, None].expand(resolution, resolution)
    return torch.stack([rows, rows.T, torch.ones_like(rows)])[None]


@pytest.mark.parametrize("resolution", [64, 128, 300, 512])
@pytest.mark.parametrize("size", [37, 112, 224])
def test_whole_image_equals_antialiased_bilinear_interpolation(resolution: int, size: int) -> None:
    images = torch.randn(2, 3, resolution, resolution, dtype=torch.float64)
    expected = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(Framing(WHOLE, size)(images), expected)


@pytest.mark.parametrize("resolution", [1024, 512, 256, 128, 97])
@pytest.mark.parametrize("box", [FACE, Box(0.1, 0.3, 0.5, 0.9)], ids=["square", "oblong"])
def test_crop_samples_the_box_at_every_resolution(resolution: int, box: Box) -> None:
    rows, columns, ones = Framing(box, 50)(ramps(resolution))[0]
    centres = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    torch.testing.assert_close(ones, torch.ones(50, 50, dtype=torch.float64))
    expected_rows = box.y0 + centres * (box.y1 - box.y0)
    expected_columns = box.x0 + centres * (box.x1 - box.x0)
    torch.testing.assert_close(rows, expected_rows[:, None].expand(50, 50), rtol=0, atol=0.15 / resolution)
    torch.testing.assert_close(columns, expected_columns.expand(50, 50), rtol=0, atol=0.15 / resolution)


def test_crop_of_a_downsampled_image_shows_the_same_face(smooth_images: Callable[..., Tensor]) -> None:
    images = smooth_images(1, 512)
    reduced = F.avg_pool2d(images, 2)
    difference = Framing(FACE, 56)(images) - Framing(FACE, 56)(reduced)
    assert difference.abs().mean() < 0.01


def test_gradient_is_exact(assert_gradient: Callable[..., None]) -> None:
    weights = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    assert_gradient(lambda x: (Framing(FACE, 9)(x).sin() * weights).sum(), torch.randn(1, 3, 31, 31))


def test_gradient_works_after_a_first_use_in_inference_mode() -> None:
    framing = Framing(FACE, 8)
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        framing(images)
    images.requires_grad_()
    framing(images).sum().backward()
    assert images.grad is not None and images.grad.sum() > 0


def test_dtype_and_batch_are_kept() -> None:
    framing = Framing(FACE, 8)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert framing(torch.zeros(3, 3, 32, 32, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("box", [(-0.1, 1, 0, 1), (0, 1.1, 0, 1), (0.6, 0.4, 0, 1), (0, 1, float("nan"), 1)])
def test_box_outside_the_image_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match="box"):
        Framing(box, 8)


def test_oblong_image_is_refused_with_its_shape() -> None:
    with pytest.raises(UsageError, match="64, 32"):
        Framing(WHOLE, 8)(torch.zeros(1, 3, 64, 32))


def test_arcface_is_the_published_crop() -> None:
    images = torch.rand(1, 3, 512, 512) * 2 - 1
    cut = F.adaptive_avg_pool2d(images, 256)[:, :, 35:223, 32:220]
    expected = F.adaptive_avg_pool2d(cut, 112) * 127.5 + 127.5
    assert torch.allclose(Framing.arcface()(images), expected, atol=1e-3)


@pytest.mark.parametrize("resolution", [64, 256, 97])
def test_eg3d_framing_is_moved_there_and_back(resolution: int) -> None:
    images = torch.randn(2, 3, resolution, resolution)
    down, right = round(EG3D_DOWN * resolution), round(EG3D_RIGHT * resolution)
    moved = eg3d_framed(images)
    assert moved.shape == images.shape
    assert torch.equal(moved[..., : resolution - down, : resolution - right], images[..., down:, right:])
    assert torch.equal(moved[..., resolution - down :, 0], images[..., -1:, right].expand(-1, -1, down))
    assert torch.equal(ffhq_framed(moved)[..., down:, right:], images[..., down:, right:])
