"""The read-out answers 1 to the person, little to others, as its closed form says."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from torch import Tensor

from guide_fast.ltu import population as module
from guide_fast.ltu.population import Population, sample_population
from guide_fast.models.mobile_stylegan import MobileStyleGAN

RIDGES = pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])


@pytest.fixture
def w_id(w_u: Tensor, population: Population) -> Tensor:
    """[L, D] with another row in every slot."""
    return w_u - population.mean + 0.3 * seeded(*w_u.shape, seed=1)


def objective(population: Population, v: Tensor, ridge: float) -> Tensor:
    """E[(v . w)^2] + ridge * tr(C)/D * |v|^2 of each row, written out."""
    covariance = population.covariance.double()
    spread = torch.einsum("ld,de,le->l", v.double(), covariance, v.double())
    return spread + ridge * covariance.trace() / len(covariance) * v.double().square().sum(1)


@RIDGES
def test_response_answers_one_to_the_person(population: Population, w_id: Tensor, ridge: float) -> None:
    response = population.response(w_id, ridge=ridge)
    assert response.shape == w_id.shape
    assert torch.allclose((response * w_id).sum(1), torch.ones(len(w_id)), atol=1e-5)


@RIDGES
def test_response_is_the_minimum_under_its_constraint(population: Population, w_id: Tensor, ridge: float) -> None:
    response = population.response(w_id, ridge=ridge)
    best = objective(population, response, ridge)
    for seed in range(20):
        step = seeded(*w_id.shape, seed=seed) * 0.1
        step -= (step * w_id).sum(1, keepdim=True) / w_id.square().sum(1, keepdim=True) * w_id  # still answers 1
        assert (objective(population, response + step, ridge) > best).all()


def test_response_obeys_the_closed_form(population: Population, w_id: Tensor) -> None:
    covariance = population.covariance.double()
    regular = covariance + 0.5 * covariance.trace() / 16 * torch.eye(16, dtype=torch.float64)
    for row, found in zip(w_id.double(), population.response(w_id, ridge=0.5), strict=True):
        direction = regular.inverse() @ row
        assert torch.allclose(found, (direction / (direction @ row)).float(), rtol=1e-4, atol=1e-6)


def test_response_to_random_people_is_small(population: Population, w_id: Tensor, styles: Tensor) -> None:
    answers = (styles - population.mean) @ population.response(w_id, ridge=1.0)[0]
    plain = (styles - population.mean) @ (w_id[0] / w_id[0].square().sum())
    assert answers.square().mean() < plain.square().mean()
    assert answers.square().mean() < 0.5


@RIDGES
def test_whitening_turns_the_covariance_into_the_identity(population: Population, ridge: float) -> None:
    whitening = population.whitening(ridge=ridge).double()
    assert torch.allclose(whitening, whitening.T, atol=1e-5)
    white = whitening @ population.regularised(ridge) @ whitening
    assert torch.allclose(white, torch.eye(16, dtype=torch.float64), atol=1e-3)


def test_moments_are_those_of_the_mapped_latents(teacher: MobileStyleGAN) -> None:
    found = sample_population(teacher, samples=96, random=torch.Generator().manual_seed(3))
    centred = (teacher.mapping(seeded(96, 16, seed=3))[:, 0] - teacher.w_mean).double()
    assert torch.equal(found.mean, teacher.w_mean)
    assert torch.allclose(found.covariance.double(), centred.T @ centred / 96, atol=1e-5)


@pytest.mark.parametrize("chunk", [32, 40, 96, 1000])
def test_chunks_do_not_change_the_moments(teacher: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    whole = sample_population(teacher, samples=96, random=torch.Generator().manual_seed(3))
    monkeypatch.setattr(module, "_CHUNK", chunk)
    parts = sample_population(teacher, samples=96, random=torch.Generator().manual_seed(3))
    assert torch.allclose(parts.covariance, whole.covariance, atol=1e-5)
