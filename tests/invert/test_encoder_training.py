"""The small encoder learns from what a generator makes to tell whom an image shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import Averages, TinyIdentity, person, tiny_generator

from guide_fast.config import EncoderConfig
from guide_fast.errors import DivergedError, UsageError
from guide_fast.invert.encoder_training import train_encoder
from guide_fast.models.encoders import small
from guide_fast.models.encoders.small import SmallEncoder
from guide_fast.models.mobile_stylegan import MobileStyleGAN

CONFIG = EncoderConfig(samples=192, held_out=32, epochs=6, batch=16, dropout=0.0)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of fewer weights, which trains in a second."""
    monkeypatch.setattr(small, "JOINED", 8)
    monkeypatch.setattr(small, "HIDDEN", 64)


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


def trained(generator: MobileStyleGAN, config: EncoderConfig = CONFIG):
    return train_encoder(generator, identity=TinyIdentity(), perceptual=Averages(), config=config)


def test_trained_encoder_is_nearer_than_the_mean_face(generator: MobileStyleGAN) -> None:
    found = trained(generator)
    assert found.error < 0.9
    encoder = SmallEncoder(
        found.tensors, found.config | {"name": "small"}, identity=TinyIdentity(), perceptual=Averages()
    )
    encoder.check_fits(generator)
    people = torch.stack([person(generator, seed) for seed in range(40)])
    codes = encoder.encode(generator.synthesis(people).image, w_mean=generator.w_mean)
    assert (codes - people).square().mean() < 0.9 * (generator.w_mean - people).square().mean()


def test_same_seed_gives_the_same_weights_whatever_the_global_state(generator: MobileStyleGAN) -> None:
    config = replace(CONFIG, samples=40, held_out=8, epochs=1, dropout=0.5)
    torch.manual_seed(1)
    first = trained(generator, config)
    networks = {"identity": TinyIdentity(), "perceptual": Averages()}
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = train_encoder(generator, **networks, config=config)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers were taken
    assert first.error == second.error
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    other = trained(generator, replace(config, seed=1))
    assert not torch.equal(first.tensors["dense.weight"], other.tensors["dense.weight"])


def test_settings_that_leave_nothing_to_train_on_are_refused(generator: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match=r"encoder\.held_out = 32 leaves nothing"):
        trained(generator, replace(CONFIG, samples=32))


def test_loss_that_explodes_stops_the_training(generator: MobileStyleGAN) -> None:
    with pytest.raises(DivergedError, match=r"lower encoder\.lr"):
        trained(generator, replace(CONFIG, samples=160, lr=1e30, epochs=4))
