"""Faces that train the small encoder: whose they are, how they look."""

from __future__ import annotations

import pytest
import torch
from tiny import Averages, TinyIdentity, seeded, tiny_generator

from guide_fast.invert.encoder_samples import BATCH, Samples, as_photographed, encoder_samples, mixed_ws
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.randomness import stream


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


def samples_of(generator: MobileStyleGAN, count: int = 20, seed: int = 0) -> Samples:
    return encoder_samples(generator, identity=TinyIdentity(), perceptual=Averages(), count=count, scale=2.0, seed=seed)


def test_samples_reproduce_alone_without_repeating(generator: MobileStyleGAN) -> None:
    found, more = samples_of(generator, 20), samples_of(generator, 40)
    assert torch.equal(found.codes[:BATCH], more.codes[:BATCH])
    assert torch.equal(found.maps[0][:BATCH], more.maps[0][:BATCH])
    assert len(more) == 40 == len(more.codes.flatten(1).unique(dim=0))
    assert not torch.equal(found.codes, samples_of(generator, 20, seed=1).codes)


def test_codes_are_in_units_of_the_scale(generator: MobileStyleGAN) -> None:
    found = samples_of(generator, BATCH)
    ws = mixed_ws(generator, BATCH, stream("encoder", 0, 0))
    assert torch.allclose(found.codes.float() * 2.0 + generator.w_mean, ws, atol=2e-3)


def test_people_are_mixed_from_a_slot_on(generator: MobileStyleGAN) -> None:
    ws = mixed_ws(generator, 64, stream("test", 0))
    assert ws.shape == (64, generator.num_ws, generator.w_dim)
    changes = (ws[:, 1:] - ws[:, :-1]).abs().amax(dim=2) > 1e-6  # [N, L - 1]
    assert set(changes.sum(dim=1).tolist()) == {0, 1}  # one person, or two
    assert (ws - generator.w_mean).norm(dim=2).min() > 0


def test_photographed_images_stay_in_range_without_two_being_treated_alike() -> None:
    image = seeded(1, 3, 256, 256, seed=0).clamp(-1, 1)
    seen = as_photographed(image.expand(4, -1, -1, -1), stream("test", 1))
    assert seen.shape == (4, 3, 256, 256)
    assert seen.min() >= -1
    assert seen.max() <= 1
    differences = (seen[1:] - seen[:1]).abs().mean(dim=(1, 2, 3))
    assert (differences > 1e-3).all()
