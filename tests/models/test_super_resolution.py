"""Super-resolution of every kind enlarges what it is given, resizes first where it has to."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_config, tiny_eg3d
from torch import Tensor
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.eg3d import EG3D
from guide_fast.models.super_resolution import KINDS, SuperResolution


def assert_near(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == wanted.shape
    worst = ((found - wanted).abs().max() / (wanted.max() - wanted.min())).item()
    assert worst <= tolerance, f"off by {worst} of the range, {tolerance} is allowed"


def test_assert_near_can_fail() -> None:
    wanted = torch.tensor([0.0, 2.0])
    assert_near(wanted + 1e-4, wanted)
    for wrong in (wanted + 3e-4, torch.tensor([0.0, float("nan")])):
        with pytest.raises(AssertionError):
            assert_near(wrong, wanted)


@pytest.mark.parametrize("kind", ["2X", "4X", "8X", "8XDC"])
@torch.no_grad()
def test_every_super_resolution_is_its_reference(kind: str) -> None:
    generator = tiny_eg3d(kind)
    ws = seeded(1, generator.num_ws, generator.w_dim, seed=3)
    fast = generator.synthesis(ws, neural_rendering_resolution=16)
    generator.impl = "reference"
    plain = generator.synthesis(ws, neural_rendering_resolution=16)
    assert fast.image.shape == (1, 3, generator.img_resolution, generator.img_resolution)
    assert_near(fast.image, plain.image)
    assert fast.depth is not None and plain.depth is not None
    assert fast.depth.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("size", [16, 96])
@torch.no_grad()
def test_other_sizes_are_resized_first(size: int) -> None:
    enlarge = tiny_eg3d().superresolution
    features, ws = seeded(1, 32, size, size, seed=1), seeded(1, 8, 16, seed=2)
    resized = F.interpolate(features, size=(64, 64), mode="bilinear", antialias=True)
    assert torch.equal(enlarge(features, ws), enlarge(resized, ws))


@torch.no_grad()
def test_only_the_last_style_vector_is_read() -> None:
    enlarge = tiny_eg3d().superresolution
    features, ws = seeded(1, 32, 64, 64, seed=1), seeded(1, 8, 16, seed=2)
    assert torch.equal(enlarge(features, ws), enlarge(features, ws[:, -1:]))
    assert not torch.equal(enlarge(features, ws), enlarge(features, ws[:, :1]))


@torch.no_grad()
def test_what_comes_in_is_left_as_it_is() -> None:
    features = seeded(1, 32, 64, 64, seed=1)
    kept = features.clone()
    tiny_eg3d().superresolution(features, seeded(1, 8, 16, seed=2))  # adds to the image of the same size
    assert torch.equal(features, kept)


def test_unknown_super_resolution_is_refused() -> None:
    config = tiny_config()
    config["super_resolution"]["kind"] = "16X"
    with pytest.raises(UsageError, match="2X, 4X, 8X, 8XDC"):
        EG3D(config)


@pytest.mark.parametrize("kind", list(KINDS))
def test_another_image_size_than_the_kinds_is_refused(kind: str) -> None:
    options = {"channels": 32, "w_dim": 16, "half": False, "antialias": True}
    with pytest.raises(UsageError, match=f"{kind} makes {KINDS[kind].outputs} px, the checkpoint says 1024"):
        SuperResolution(kind, img_resolution=1024, noise="none", **options)
    with pytest.raises(UsageError, match="'loud'"):
        SuperResolution(kind, img_resolution=KINDS[kind].outputs, noise="loud", **options)


def test_noise_that_is_drawn_needs_a_generator() -> None:
    enlarge = tiny_eg3d().superresolution
    enlarge.noise = "random"
    features, ws = seeded(1, 32, 64, 64, seed=1), seeded(1, 8, 16, seed=2)
    with pytest.raises(UsageError, match="draws noise"):
        enlarge(features, ws)
    drawn = [enlarge(features, ws, random=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
