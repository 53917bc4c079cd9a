"""Targets lie where their kind says, far from the person, or are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny import TinyIdentity, person, tiny_generator
from torch import Tensor

from guide_fast.artifacts import Target
from guide_fast.config import TargetConfig
from guide_fast.errors import RefusedError
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.target import choose_target

ANY = TargetConfig(d=3.0, candidates=4, max_similarity=1.0)


class Scripted(TinyIdentity):
    """Answers with the given similarities, one a candidate."""

    def __init__(self, *similarities: float) -> None:
        super().__init__()
        self.left = list(similarities)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.tensor([self.left.pop(0)])


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture
def w_u(generator: MobileStyleGAN) -> Tensor:
    """A person with another style in every slot."""
    return torch.stack([person(generator, seed)[0] for seed in range(100, 100 + generator.num_ws)])


def choose(
    generator: MobileStyleGAN, w_u: Tensor, identity: TinyIdentity | None = None, seed: int = 0, **settings: object
) -> Target:
    return choose_target(
        generator, w_u, identity=identity or TinyIdentity(), config=replace(ANY, **settings), seed=seed
    )


def test_ufo_lies_opposite_at_length_d_per_slot(generator: MobileStyleGAN, w_u: Tensor) -> None:
    target = choose(generator, w_u, kind="ufo")
    offset, w_id = target.w - generator.w_mean, w_u - generator.w_mean
    assert torch.allclose(offset.norm(dim=1), torch.full((8,), 3.0), rtol=1e-5)
    assert offset.norm().item() == pytest.approx(3.0 * math.sqrt(8), rel=1e-5)
    assert torch.allclose(torch.cosine_similarity(offset, w_id), -torch.ones(8), atol=1e-5)
    assert (target.kind, target.d, target.pushes) == ("ufo", 3.0, 0)


def test_default_length_is_the_papers_over_equal_rows() -> None:
    assert TargetConfig().d * math.sqrt(14) == pytest.approx(30)


def test_mean_is_the_mean_in_every_slot(generator: MobileStyleGAN, w_u: Tensor) -> None:
    target = choose(generator, w_u, kind="mean")
    assert torch.equal(target.w, generator.w_mean.expand(8, -1))
    target.w.zero_()  # its own memory
    assert generator.w_mean.abs().sum() > 0


@pytest.mark.parametrize("turn", [0.0, 60.0, 90.0, 180.0])
def test_surrogate_is_turned_from_the_ufo_by_its_angle_in_every_slot(
    generator: MobileStyleGAN, w_u: Tensor, turn: float
) -> None:
    offset = choose(generator, w_u, kind="surrogate", turn=turn).w - generator.w_mean
    cosine = torch.cosine_similarity(offset, generator.w_mean - w_u)
    assert torch.allclose(cosine, torch.full((8,), math.cos(math.radians(turn))), atol=1e-5)
    assert torch.allclose(offset.norm(dim=1), torch.full((8,), 3.0), rtol=1e-5)


def test_surrogate_at_a_right_angle_is_orthogonal_to_the_person(generator: MobileStyleGAN, w_u: Tensor) -> None:
    offset = choose(generator, w_u, turn=90.0).w - generator.w_mean
    assert torch.cosine_similarity(offset, w_u - generator.w_mean).abs().max() < 1e-5


def test_surrogate_keeps_its_angle_to_a_person_who_is_among_the_candidates(generator: MobileStyleGAN) -> None:
    w_u = person(generator, seed=0)  # `forget(seed=0)`: the candidates are drawn with the same seed
    for j in range(4):
        target = choose(generator, w_u, Scripted(*(float(i != j) for i in range(4))), seed=0, turn=90.0)
        assert torch.cosine_similarity(target.w - generator.w_mean, w_u - generator.w_mean).abs().max() < 1e-4


def test_surrogate_is_the_least_similar_candidate(generator: MobileStyleGAN, w_u: Tensor) -> None:
    every = [choose(generator, w_u, Scripted(*(float(i != j) for i in range(4)))) for j in range(4)]
    assert len({tuple(target.w.flatten().tolist()) for target in every}) == 4
    assert all(target.similarity == 0.0 for target in every)


def test_surrogate_depends_on_the_seed_alone(generator: MobileStyleGAN, w_u: Tensor) -> None:
    torch.manual_seed(1)
    first = choose(generator, w_u, seed=3)
    torch.manual_seed(2)
    assert torch.equal(choose(generator, w_u, seed=3).w, first.w)
    assert not torch.equal(choose(generator, w_u, seed=4).w, first.w)


def test_target_that_is_too_close_is_pushed(generator: MobileStyleGAN, w_u: Tensor) -> None:
    identity = Scripted(0.9, 0.6, 0.2)
    target = choose(generator, w_u, identity, kind="ufo", max_similarity=0.25, push=1.5)
    assert (target.pushes, target.similarity) == (2, pytest.approx(0.2))
    assert target.d == pytest.approx(3.0 * 1.5**2)
    assert torch.allclose((target.w - generator.w_mean).norm(dim=1), torch.full((8,), 6.75), rtol=1e-5)


def test_target_at_the_limit_is_taken(generator: MobileStyleGAN, w_u: Tensor) -> None:
    assert choose(generator, w_u, Scripted(0.25), kind="ufo", max_similarity=0.25).pushes == 0


def test_pushing_in_vain_is_refused_with_the_nearest_try(generator: MobileStyleGAN, w_u: Tensor) -> None:
    identity = Scripted(0.9, 0.6, 0.7)
    said = r"ufo target resembles the person \(0\.60, allowed 0\.25\); use --target surrogate, or raise"
    with pytest.raises(RefusedError, match=said):
        choose(generator, w_u, identity, kind="ufo", max_similarity=0.25, max_pushes=2)
    assert identity.left == []


def test_refused_surrogate_is_not_advised_to_become_one(generator: MobileStyleGAN, w_u: Tensor) -> None:
    with pytest.raises(RefusedError, match=r"; use another --run-seed, or raise target\.max_similarity$"):
        choose(generator, w_u, Scripted(*[0.9] * 4), max_similarity=0.25, max_pushes=0)


def test_progress_counts_candidates_of_every_push(generator: MobileStyleGAN, w_u: Tensor) -> None:
    told: list[tuple[str, int, int]] = []
    choose_target(
        generator,
        w_u,
        identity=Scripted(0.9, 0.8, 0.3, 0.2),
        config=replace(ANY, candidates=2, max_similarity=0.25),
        progress=lambda *call: told.append(call[:3]),
    )
    assert told == [("choosing the target", done, 2) for done in (0, 1, 2, 0, 1, 2)]


def test_mean_is_not_pushed(generator: MobileStyleGAN, w_u: Tensor) -> None:
    with pytest.raises(RefusedError, match="mean target"):
        choose(generator, w_u, Scripted(0.9), kind="mean", max_similarity=0.25)


def test_choosing_leaves_no_graph(generator: MobileStyleGAN, w_u: Tensor) -> None:
    assert not choose(generator.requires_grad_(True), w_u).w.requires_grad
