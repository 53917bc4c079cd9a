"""A request on a generator of 32 px: teacher, person, target, networks, bank."""

from __future__ import annotations

import pytest
import torch
from tiny import CONFIG, TinyIdentity, TinyPerceptual, person, seeded, tiny_generator
from torch import Tensor

from guide_fast.config import LtuConfig
from guide_fast.ltu import Bank, Networks, preservation_bank
from guide_fast.ltu.population import Population, sample_population
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN


@pytest.fixture
def teacher() -> MobileStyleGAN:
    generator = tiny_generator()
    attach_head(generator, 16)
    return generator


@pytest.fixture
def w_u(teacher: MobileStyleGAN) -> Tensor:
    return person(teacher, seed=777)


@pytest.fixture
def w_t(teacher: MobileStyleGAN, w_u: Tensor) -> Tensor:
    other = person(teacher, seed=778) - teacher.w_mean
    return teacher.w_mean + 2 * torch.nn.functional.normalize(other, dim=1)


@pytest.fixture
def networks() -> Networks:
    return Networks(TinyIdentity(), TinyPerceptual())


@pytest.fixture
def config() -> LtuConfig:
    return CONFIG.ltu


@pytest.fixture
def bank(teacher: MobileStyleGAN, networks: Networks, config: LtuConfig) -> Bank:
    return preservation_bank(teacher, networks, size=config.bank, resolution=config.resolution, seed=11)


@pytest.fixture
def population(teacher: MobileStyleGAN) -> Population:
    return sample_population(teacher, samples=512, random=torch.Generator().manual_seed(0))


@pytest.fixture
def styles(teacher: MobileStyleGAN) -> Tensor:
    """64 random people's style vectors [64, D]."""
    return teacher.mapping(seeded(64, teacher.z_dim, seed=5))[:, 0]
