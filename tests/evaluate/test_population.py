"""The base side is measured once, and a cache file never serves numbers that are not its own."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.config import EvaluateConfig
from guide_fast.errors import UsageError
from guide_fast.evaluate.population import (
    Population,
    match_threshold,
    measure_population,
    population_z,
    strangers,
)
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

Measure = Callable[..., Population]


@pytest.fixture
def measure(
    base: MobileStyleGAN, judge: IdentityNetwork, perceptual: PerceptualNetwork, config: EvaluateConfig, tmp_path: Path
) -> Measure:
    def call(generator: MobileStyleGAN = base, config: EvaluateConfig = config) -> Population:
        return measure_population(
            generator, {"judge": judge, "perceptual": perceptual}, config=config, cache_dir=tmp_path
        )

    return call


def assert_same(a: Population, b: Population) -> None:
    assert a.embeddings.keys() == b.embeddings.keys()
    for role in a.embeddings:
        assert torch.equal(a.embeddings[role], b.embeddings[role])
    assert torch.equal(a.thumbnails, b.thumbnails)


def test_sizes_are_those_asked_for(measure: Measure, config: EvaluateConfig) -> None:
    population = measure()
    assert {role: len(value) for role, value in population.embeddings.items()} == {"judge": 12, "perceptual": 12}
    assert population.thumbnails.shape == (5, 3, 128, 128)
    assert population.thumbnails.dtype == torch.uint8


def test_second_measurement_comes_from_the_cache(measure: Measure, judge: IdentityNetwork) -> None:
    first, seen = measure(), judge.images_seen
    assert_same(first, measure())
    assert judge.images_seen == seen == 12


@pytest.mark.parametrize("change", ["weights", "judge", "seed", "count"])
def test_anything_that_matters_is_measured_anew(
    change: str, measure: Measure, judge: IdentityNetwork, edited: MobileStyleGAN, config: EvaluateConfig
) -> None:
    first = measure()
    if change == "weights":
        second = measure(edited)
    elif change == "judge":
        with torch.no_grad():
            judge.weight.neg_()
        second = measure()
    elif change == "seed":
        second = measure(config=dataclasses.replace(config, seed=1))
    else:
        second = measure(config=dataclasses.replace(config, fd_images=13))
    assert judge.images_seen > 12
    assert not torch.equal(first.embeddings["judge"], second.embeddings["judge"][:12]) or change == "count"


def test_settings_that_do_not_matter_reuse_the_cache(
    measure: Measure, judge: IdentityNetwork, config: EvaluateConfig
) -> None:
    measure()
    measure(config=dataclasses.replace(config, neighbours=9, radius=1.0, stranger_pairs=7))
    assert judge.images_seen == 12


def damage_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def put_another_in_its_place(path: Path) -> None:
    tensors, metadata = read_safetensors(path, "population")
    metadata["key"]["weights"] = "0" * 64
    write_safetensors(path, tensors, "population", metadata)


@pytest.mark.parametrize("harm", [damage_a_byte, cut_short, put_another_in_its_place], ids=lambda harm: harm.__name__)
def test_harmed_cache_is_measured_anew_with_a_warning(
    harm: Callable[[Path], None],
    measure: Measure,
    judge: IdentityNetwork,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = measure()
    (file,) = tmp_path.iterdir()
    harm(file)
    with caplog.at_level(logging.WARNING):
        assert_same(first, measure())
    assert judge.images_seen == 24
    assert "made anew" in caplog.text
    assert_same(first, measure())
    assert judge.images_seen == 24, "the harmed file was not replaced"


def test_cache_that_cannot_be_written_costs_a_warning(
    base: MobileStyleGAN,
    judge: IdentityNetwork,
    perceptual: PerceptualNetwork,
    config: EvaluateConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        population = measure_population(
            base, {"judge": judge, "perceptual": perceptual}, config=config, cache_dir=tmp_path / "file" / "cache"
        )
    assert len(population.embeddings["judge"]) == 12
    assert "not cached" in caplog.text


def test_people_depend_on_the_seed_alone(base: MobileStyleGAN, config: EvaluateConfig) -> None:
    fewer = dataclasses.replace(config, bystanders=2, batch=1)
    assert torch.equal(population_z(base, config), population_z(base, fewer))
    other = dataclasses.replace(config, seed=config.seed + 1)
    assert not torch.equal(population_z(base, config), population_z(base, other))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"bystanders": 13}, "bystanders is 13"), ({"fd_images": 2}, "fd_images is 2"), ({"batch": 0}, "batch is 0")],
)
def test_sizes_without_sense_are_refused(
    sizes: dict[str, int], said: str, measure: Measure, config: EvaluateConfig
) -> None:
    with pytest.raises(UsageError, match=said):
        measure(config=dataclasses.replace(config, **sizes))


def unit_circle(angles: list[float]) -> Tensor:
    turned = torch.tensor(angles)
    return torch.stack((turned.cos(), turned.sin()), dim=1)


def test_strangers_are_all_pairs_when_these_are_few(judge: IdentityNetwork, config: EvaluateConfig) -> None:
    mean, deviation = strangers(judge, unit_circle([0.0, 0.1, 0.3]), config)
    expected = torch.tensor([0.1, 0.2, 0.3]).cos().double()
    assert mean == pytest.approx(float(expected.mean()), abs=1e-6)
    assert deviation == pytest.approx(float(expected.std()), abs=1e-6)


def test_strangers_never_compare_somebody_with_himself(judge: IdentityNetwork, config: EvaluateConfig) -> None:
    opposite = torch.eye(40)
    assert strangers(judge, opposite, config) == (0.0, 0.0)


def test_threshold_lets_one_pair_in_a_thousand_pass(judge: IdentityNetwork) -> None:
    people = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    threshold = match_threshold(judge, people)
    i, j = torch.triu_indices(100, 100, offset=1)
    similarity = judge.similarity(people[i], people[j])
    assert int((similarity > threshold).sum()) == int(1e-3 * len(similarity)) == 4
