"""The objective is zero at the photo, grows away from it and has a gradient."""

from __future__ import annotations

import pytest
import torch

from guide_fast.config import InvertConfig
from guide_fast.invert.objective import Objective, reduced
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def objective(photo: torch.Tensor, identity: IdentityNetwork, perceptual: PerceptualNetwork) -> Objective:
    return Objective(photo, identity=identity, perceptual=perceptual, config=InvertConfig(resolution=48))


def test_photo_itself_costs_nothing(objective: Objective, photo: torch.Tensor) -> None:
    terms = objective(reduced(photo, 48))
    for name, value in vars(terms).items():
        assert value.item() == pytest.approx(0, abs=1e-5), name


def test_terms_are_weighted_by_the_configuration(objective: Objective) -> None:
    terms = objective(torch.zeros(1, 3, 48, 48))
    config = InvertConfig(identity=2.0, perceptual=3.0, pixel=5.0)
    expected = 2 * terms.identity + 3 * terms.perceptual + 5 * terms.pixel
    assert torch.allclose(terms.weighted(config), expected) and expected.item() > 0.1


@pytest.mark.parametrize("size", [16, 48, 65])
def test_each_image_of_any_size_has_its_own_terms(objective: Objective, size: int) -> None:
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = objective(images).weighted(InvertConfig())
    apart = torch.cat([objective(image[None]).weighted(InvertConfig()) for image in images])
    assert together.shape == (3,) and torch.allclose(together, apart, atol=1e-5)


def test_gradient_leads_to_the_photo(objective: Objective) -> None:
    images = (torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(2)) - 0.5).requires_grad_()
    before = objective(images).weighted(InvertConfig()).sum()
    before.backward()
    assert images.grad is not None and images.grad.isfinite().all()
    after = objective(images.detach() - 0.3 * images.grad / images.grad.norm()).weighted(InvertConfig()).sum()
    assert after < before
