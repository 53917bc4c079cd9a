"""The loss terms are zero for equal views, weigh what the settings say, look where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import person, seeded
from torch import Tensor

from guide_fast.config import LtuConfig
from guide_fast.ltu.terms import Networks, Views, adjacency_offsets, observe, preservation, reconstruction
from guide_fast.models.mobile_stylegan import MobileStyleGAN

NOTHING = LtuConfig(feature=0.0, perceptual=0.0, identity=0.0)


@pytest.fixture
def views(teacher: MobileStyleGAN, networks: Networks) -> Views:
    """Of four people."""
    ws = torch.stack([person(teacher, seed) for seed in range(4)])
    return observe(teacher.synthesis(ws, resolution=16), networks)


@pytest.mark.parametrize("term", [reconstruction, preservation])
def test_equal_views_cost_nothing(views: Views, networks: Networks, config: LtuConfig, term: object) -> None:
    assert term(views, views, networks, config).abs().max() < 1e-5


def test_reconstruction_is_the_weighted_sum_of_its_parts(views: Views, networks: Networks) -> None:
    one, other = views[:2], views[2:]
    parts = {
        "feature": (one.features - other.features).square().flatten(1).mean(1),
        "perceptual": networks.perceptual.distance(one.taps, other.taps),
        "identity": 1 - networks.identity.similarity(one.identity, other.identity),
    }
    for name, part in parts.items():
        assert part.min() > 0
        found = reconstruction(one, other, networks, replace(NOTHING, **{name: 2.5}))
        assert torch.allclose(found, 2.5 * part)
    weights = {"feature": 0.3, "perceptual": 2.0, "identity": 0.7}
    whole = reconstruction(one, other, networks, replace(NOTHING, **weights))
    assert torch.allclose(whole, sum(weights[name] * part for name, part in parts.items()))


def test_preservation_does_not_look_at_features(views: Views, networks: Networks, config: LtuConfig) -> None:
    one = Views(views.identity[:2], tuple(tap[:2] for tap in views.taps))
    heavy = replace(config, feature=1e9)
    wanted = reconstruction(views[:2], views[2:], networks, replace(config, feature=0.0))
    assert torch.allclose(preservation(one, views[2:], networks, heavy), wanted)


def test_views_are_cut_and_joined_along_people(views: Views) -> None:
    joined = Views.concatenate((views[:1], views[torch.tensor([1, 2])], views[3:]))
    assert torch.equal(joined.identity, views.identity)
    assert torch.equal(joined.taps[0], views.taps[0])
    assert torch.equal(joined.features, views.features)


def test_features_are_joined_only_where_all_have_them(views: Views) -> None:
    assert Views.concatenate((views, Views(views.identity, views.taps))).features is None


def test_views_come_back_from_tensors(views: Views) -> None:
    two = Views(views.identity, (views.taps[0], views.taps[0] * 2))
    back = Views.from_tensors(two.to_tensors())
    assert torch.equal(back.identity, two.identity)
    assert [torch.equal(a, b) for a, b in zip(back.taps, two.taps, strict=True)] == [True, True]


def test_observation_without_features_keeps_none(teacher: MobileStyleGAN, networks: Networks) -> None:
    rendering = teacher.synthesis(person(teacher)[None], resolution=16)
    assert observe(rendering, networks, keep_features=False).features is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_offsets_have_their_length_per_slot(teacher: MobileStyleGAN, w_u: Tensor, count: int) -> None:
    distance = torch.linspace(0.1, 4.0, 3)[:count]
    w_r = teacher.mapping(seeded(3, 16, seed=3))[:count]
    offsets = adjacency_offsets(w_u, w_r, distance)
    assert offsets.shape == (count, 8, 16)
    assert torch.allclose(offsets.flatten(1).norm(dim=1), distance * 8**0.5, rtol=1e-5)
    assert torch.allclose(offsets.norm(dim=2), distance[:, None].expand(-1, 8), rtol=1e-4)  # slots are equal here


def test_offsets_point_toward_the_random_people(teacher: MobileStyleGAN, w_u: Tensor) -> None:
    w_r = teacher.mapping(seeded(3, 16, seed=3))
    offsets = adjacency_offsets(w_u, w_r, torch.ones(3))
    assert torch.allclose(torch.cosine_similarity(offsets.flatten(1), (w_r - w_u).flatten(1)), torch.ones(3))


def test_random_person_who_is_the_person_gives_no_nan(w_u: Tensor) -> None:
    assert torch.isfinite(adjacency_offsets(w_u, w_u[None], torch.ones(1))).all()
