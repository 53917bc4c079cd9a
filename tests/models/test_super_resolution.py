"""Super-resolution of every kind enlarges what it is given, resizes first where it has to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_config, tiny_eg3d
from torch import Tensor
from torch.nn import functional as F

from guide_fast.bench.baselines.eg3d_eager import eager_enlarging
from guide_fast.errors import UsageError
from guide_fast.models.checkpoint import read_checkpoint
from guide_fast.models.eg3d import EG3D
from guide_fast.models.super_resolution import CLAMP, KINDS, SuperResolution


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


@torch.no_grad()
def transcribed(
    enlarge: SuperResolution, kind: str, features: Tensor, ws: Tensor, *, clamp: float | None = None
) -> Tensor:
    """The published semantics in plain PyTorch: bench/baselines/eg3d_eager.py."""
    weights = dict(enlarge.named_parameters()) | dict(enlarge.named_buffers())
    return eager_enlarging(weights, features, ws, kind=kind, clamp=clamp)


def test_transcription_reproduces_the_published_super_resolution(shared: Path) -> None:
    """8XDC is the one kind of which there is an output of the reference implementation."""
    read = read_checkpoint(shared / "fixtures" / "eg3d_tiny.pkl")
    generator = EG3D.from_tensors(read.tensors, read.config)
    assert read.config["super_resolution"]["kind"] == "8XDC"
    with np.load(shared / "fixtures" / "eg3d_tiny.expected.npz") as arrays:
        wanted = {name: torch.from_numpy(arrays[name]) for name in arrays}
    ws, c = wanted["ws_psi07_cutoff14"], wanted["c"]
    with torch.no_grad():
        features = generator.synthesis(ws, c).features
    assert_near(features[:, :3], wanted["image_raw"])  # what goes in is the reference's
    found = transcribed(generator.superresolution, "8XDC", features, ws, clamp=CLAMP)
    assert_near(found[:, :, ::4, ::4], wanted["image_every4"])
    assert_near(found.mean(dim=(2, 3)), wanted["image_mean"])


@pytest.mark.parametrize(
    ("kind", "size", "half"),  # size 0: what the kind takes as it is
    [("2X", 0, True), ("4X", 0, True), ("8X", 0, True), ("2X", 32, False), ("4X", 32, False), ("8X", 32, False)],
)
@torch.no_grad()
def test_every_super_resolution_is_its_transcription(kind: str, size: int, half: bool) -> None:
    enlarge = tiny_eg3d(kind).superresolution
    for block in (enlarge.block0, enlarge.block1):
        for layer in (block.conv0, block.conv1, block.torgb):
            layer.clamp = CLAMP if half else None
    features, ws = seeded(1, 32, *[size or KINDS[kind].inputs] * 2, seed=1), seeded(1, 8, 16, seed=2)
    features[:, :, 3, 5] = 1e4  # so that the clamp bites
    found = enlarge(features, ws)
    clamped, free = (transcribed(enlarge, kind, features, ws, clamp=clamp) for clamp in (CLAMP, None))
    assert found.shape[-1] == KINDS[kind].outputs
    assert_near(found, clamped if half else free, 1e-5)
    assert (clamped - free).abs().max() > 1e-2 * (free.max() - free.min())


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
