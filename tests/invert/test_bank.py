"""The bank answers with latents near the photo's, and survives a damaged cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guide_fast.invert.bank import SampleBank, sample_bank
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork


@pytest.fixture
def build(
    generator: MobileStyleGAN, identity: IdentityNetwork, perceptual: PerceptualNetwork
) -> Callable[..., SampleBank]:
    def call(samples: int = 64, seed: int = 0, cache_dir: Path | None = None) -> SampleBank:
        return sample_bank(
            generator,
            identity=identity,
            perceptual=perceptual,
            samples=samples,
            resolution=None,
            seed=seed,
            cache_dir=cache_dir,
        )

    return call


@pytest.mark.parametrize("samples", [1, 13, 64])
def test_guesses_are_finite_latents(
    build: Callable[..., SampleBank],
    generator: MobileStyleGAN,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    samples: int,
) -> None:
    bank = build(samples)
    photo = generator.synthesis(generator.w_mean.expand(1, generator.num_ws, -1)).image
    guesses = bank.guesses(photo, identity=identity, perceptual=perceptual, w_mean=generator.w_mean)
    assert guesses.shape == (2, generator.w_dim) and guesses.isfinite().all()
    assert bank.spread(generator.w_mean) > 0


def test_a_sample_of_the_bank_is_found_again(
    build: Callable[..., SampleBank],
    generator: MobileStyleGAN,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
) -> None:
    bank = build()
    photo = generator.synthesis(bank.w[11].expand(1, generator.num_ws, -1)).image
    nearest, regressed = bank.guesses(photo, identity=identity, perceptual=perceptual, w_mean=generator.w_mean)
    assert torch.equal(nearest, bank.w[11])
    assert (regressed - bank.w[11]).norm() < 0.6 * (generator.w_mean - bank.w[11]).norm()


def test_cache_gives_the_same_bank(build: Callable[..., SampleBank], tmp_path: Path) -> None:
    built, read = build(cache_dir=tmp_path), build(cache_dir=tmp_path)
    assert all(torch.equal(value, vars(read)[name]) for name, value in vars(built).items())
    assert len(list(tmp_path.iterdir())) == 1
    build(seed=1, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_weights_have_another_bank(
    build: Callable[..., SampleBank], generator: MobileStyleGAN, tmp_path: Path
) -> None:
    first = build(cache_dir=tmp_path)
    generator.to_img.bias.add_(0.5)
    assert not torch.equal(first.embeddings, build(cache_dir=tmp_path).embeddings)


def test_damaged_cache_is_made_again(build: Callable[..., SampleBank], tmp_path: Path) -> None:
    first = build(cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(build(cache_dir=tmp_path).w, first.w)
    assert path.stat().st_size > 100
