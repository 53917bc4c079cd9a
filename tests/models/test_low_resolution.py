"""A head gives the small image of the same person, is fitted once, belongs to its weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny import seeded, tiny_generator
from torch.nn import functional as F

from guide_fast.artifacts import read_safetensors, rendering_sha256, weights_sha256, write_safetensors
from guide_fast.errors import UsageError
from guide_fast.kernels import haar
from guide_fast.models import low_resolution
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN

KIND = "low-resolution head"


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(low_resolution, "_fit", refuse)


def test_head_adds_a_resolution(generator: MobileStyleGAN) -> None:
    assert generator.small_resolutions == (16,)
    assert generator.resolutions == (32,)
    attach_head(generator, 16)
    assert generator.resolutions == (16, 32)
    assert generator.synthesis(generator.mapping(seeded(3, 16, seed=0)), resolution=16).image.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("resolution", [16, 32])
def test_layers_that_an_image_shows_are_those_it_depends_on(generator: MobileStyleGAN, resolution: int) -> None:
    seen = generator.seen_layers(resolution)
    if resolution == 16:
        attach_head(generator, 16)
    generator.requires_grad_(True)
    generator.synthesis(generator.mapping(seeded(1, 16, seed=0)), resolution=resolution).image.sum().backward()
    moved = [
        layer
        for layer in generator.layers
        if any(parameter.grad is not None for parameter in generator.layer_parameters(layer).values())
    ]
    assert list(seen) == moved
    assert (len(seen) < len(generator.layers)) == (resolution == 16)


def test_image_that_no_block_makes_shows_nothing(generator: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match=r"ltu\.resolution = 17 is no output of tiny; choose one of 16, 32"):
        generator.seen_layers(17)


def test_head_fitted_without_writing_is_not_cached(generator: MobileStyleGAN, tmp_path: Path) -> None:
    attach_head(generator, 16, cache_dir=tmp_path / "new", write=False)
    assert not (tmp_path / "new").exists()
    attach_head(generator, 16, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"damaged")
    attach_head(generator, 16, cache_dir=tmp_path, write=False)
    assert file.read_bytes() == b"damaged"


def test_fit_reduces_the_error_against_zero_on_unseen_people(generator: MobileStyleGAN) -> None:
    attach_head(generator, 16)
    with torch.no_grad():
        ws = generator.mapping(seeded(16, 16, seed=99))
        full = F.interpolate(generator.synthesis(ws).image, size=(16, 16), mode="area")
        small = generator.synthesis(ws, resolution=16).image
    assert (small - full).square().mean() < 0.8 * full.square().mean()


def test_error_in_the_file_is_the_error_of_the_fit(generator: MobileStyleGAN, tmp_path: Path) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    tensors, _ = read_safetensors(file, KIND)
    random = torch.Generator().manual_seed(low_resolution.FIT_SEED)
    wrong = power = 0.0
    with torch.no_grad():
        for _ in range(low_resolution.FIT_SAMPLES):
            ws = generator.mapping(torch.randn(1, generator.z_dim, generator=random))
            full = F.interpolate(generator.synthesis(ws).image, size=(16, 16), mode="area")
            wrong += (generator.synthesis(ws, resolution=16).image - full).square().sum().item()
            power += full.square().sum().item()
    assert tensors["relative_error"].item() == pytest.approx(wrong / power, rel=1e-3)


def test_second_head_comes_from_the_cache(
    generator: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    request.getfixturevalue("no_fit")
    again = tiny_generator()
    attach_head(again, 16, cache_dir=tmp_path)
    ws = again.mapping(seeded(1, 16, seed=0))
    assert torch.equal(again.synthesis(ws, resolution=16).image, generator.synthesis(ws, resolution=16).image)


def test_other_weights_get_their_own_head(generator: MobileStyleGAN, tmp_path: Path) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    attach_head(tiny_generator(seed=1), 16, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_buffers_get_their_own_head(generator: MobileStyleGAN, tmp_path: Path) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    other = tiny_generator()
    other.conv1.noise.add_(0.5)  # no parameter, but it changes every image
    attach_head(other, 16, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_head_in_the_cache_is_fitted_anew_with_a_note(
    generator: MobileStyleGAN, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    tensors, metadata = read_safetensors(file, KIND)
    write_safetensors(file, tensors | {"weight": tensors["weight"] + 1}, KIND, metadata)
    again = tiny_generator()
    attach_head(again, 16, cache_dir=tmp_path)
    assert torch.equal(again.heads["16"].weight, generator.heads["16"].weight)
    assert "made anew" in caplog.text


def test_head_of_a_changed_generator_is_its_own(generator: MobileStyleGAN, tmp_path: Path) -> None:
    attach_head(generator, 16, cache_dir=tmp_path)
    changed = copy.deepcopy(generator)
    changed.conv1.weight.mul_(-1)  # as a delta does: the head stays
    assert torch.equal(changed.heads["16"].weight, generator.heads["16"].weight)
    from_file = MobileStyleGAN.from_tensors(
        {name: value for name, value in changed.state_dict().items() if not name.startswith("heads.")}, changed.config
    )
    attach_head(from_file, 16, cache_dir=tmp_path)
    assert not torch.equal(from_file.heads["16"].weight, generator.heads["16"].weight)
    assert weights_sha256(from_file) == weights_sha256(changed)
    assert rendering_sha256(from_file, 16) != rendering_sha256(changed, 16)
    assert rendering_sha256(from_file, 32) == rendering_sha256(changed, 32)


@pytest.mark.parametrize("resolution", [0, 8, 24, 32, 64])
def test_resolution_without_a_block_is_refused(generator: MobileStyleGAN, resolution: int) -> None:
    with pytest.raises(UsageError, match=f"no block for {resolution} px; choose one of 16"):
        attach_head(generator, resolution)


def test_progress_counts_from_nothing_to_all(generator: MobileStyleGAN) -> None:
    seen = []
    attach_head(generator, 16, progress=lambda stage, done, total, values: seen.append((stage, done, total)))
    assert seen == [(KIND, i, low_resolution.FIT_SAMPLES) for i in range(low_resolution.FIT_SAMPLES + 1)]


def test_small_image_of_the_default_recording_mode_is_differentiable(generator: MobileStyleGAN) -> None:
    attach_head(generator, 16)
    ws = generator.mapping(seeded(1, 16, seed=0)).clone().requires_grad_()
    generator.synthesis(ws, resolution=16).image.sum().backward()
    assert ws.grad is not None
    assert ws.grad[0, :5].abs().sum(1).min() > 0  # up to the next block's `up`
    assert ws.grad[0, 5:].abs().sum() == 0


def test_analysis_inverts_synthesis() -> None:
    image = seeded(2, 3, 6, 10, seed=0)
    assert torch.allclose(haar(low_resolution._haar_analysis(image)), image, atol=1e-6)
