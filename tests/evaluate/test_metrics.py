"""The metrics of an evaluation, where the answer is known."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guide_fast.artifacts import Latent
from guide_fast.config import EvaluateConfig
from guide_fast.errors import GuideFastError, UsageError
from guide_fast.evaluate import Evaluation, evaluate, passed
from guide_fast.evaluate.metrics import person_with_neighbours
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

NAMES = {
    "judge",
    "forgotten",
    "forgotten_person",
    "forgotten_neighbours",
    "forgotten_person_match",
    "match_threshold_fmr_1e3",
    "stranger_mean",
    "stranger_std",
    "retained",
    "retained_p05",
    "fd_pre",
    "fd_pre_n",
}

Run = Callable[..., Evaluation]


@pytest.fixture
def run(
    base: MobileStyleGAN,
    source: Latent,
    judge: IdentityNetwork,
    perceptual: PerceptualNetwork,
    config: EvaluateConfig,
) -> Run:
    def call(forgotten: MobileStyleGAN, **arguments: Any) -> Evaluation:
        defaults = {"judge": judge, "perceptual": perceptual, "config": config}
        return evaluate(base, forgotten, arguments.pop("source", source), **(defaults | arguments))

    return call


def test_identical_generators_forget_nothing(run: Run, base: MobileStyleGAN) -> None:
    metrics = run(copy.deepcopy(base)).metrics
    for name in ("forgotten", "forgotten_person", "retained", "retained_p05"):
        assert metrics[name] == pytest.approx(1, abs=1e-5), name
    assert metrics["forgotten_neighbours"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert metrics["fd_pre"] == pytest.approx(0, abs=1e-6)
    assert metrics["forgotten_person_match"] is True


def test_names_are_fixed_with_values_that_json_holds(run: Run, edited: MobileStyleGAN, third: IdentityNetwork) -> None:
    metrics = run(edited).metrics
    assert metrics.keys() == NAMES
    assert metrics["judge"] == "tiny-judge"
    assert metrics["fd_pre_n"] == 12
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    with_third = run(edited, third=third).metrics
    assert with_third.keys() == NAMES | {"third_opinion"}
    assert with_third["third_opinion"].keys() == {"name", "forgotten", "retained", "stranger_mean", "stranger_std"}
    assert with_third["third_opinion"]["name"] == "tiny-third"


def test_brought_networks_add_numbers_without_changing_the_others(
    run: Run, edited: MobileStyleGAN, judge: IdentityNetwork, third: IdentityNetwork, perceptual: PerceptualNetwork
) -> None:
    plain = run(edited, third=third).metrics
    metrics = run(edited, third=third, curricularface=judge, inception=perceptual).metrics
    opinion = metrics.pop("id_curricularface")
    assert opinion.pop("name") == plain["judge"]
    assert opinion == {name: plain[name] for name in ("forgotten", "retained", "stranger_mean", "stranger_std")}
    assert metrics.pop("fid_inception") == plain["fd_pre"] > 0
    assert metrics == plain


def test_mean_is_over_the_person_with_the_neighbours(run: Run, edited: MobileStyleGAN) -> None:
    metrics = run(edited).metrics
    values = [metrics["forgotten_person"], *metrics["forgotten_neighbours"]]
    assert len(values) == 4
    assert metrics["forgotten"] == pytest.approx(sum(values) / 4, rel=1e-6)
    assert metrics["forgotten"] < 0.99


def test_known_shift_of_all_images_gives_its_frechet_distance(run: Run, base: MobileStyleGAN) -> None:
    with torch.no_grad():  # small images, so that nothing is clamped
        base.to_img.weight.mul_(0.1)
    shifted = copy.deepcopy(base)
    with torch.no_grad():
        shifted.to_img.bias[::4].add_(0.4)  # low-pass bands: half of it is added to every pixel
    assert run(shifted).metrics["fd_pre"] == pytest.approx(3 * 16 * 0.2**2, rel=1e-4)


def test_same_inputs_give_the_same_evaluation(run: Run, edited: MobileStyleGAN, tmp_path: Path) -> None:
    first, second, cached = run(edited), run(edited, cache_dir=tmp_path), run(edited, cache_dir=tmp_path)
    assert first.metrics == second.metrics == cached.metrics
    for a, b in zip(first.thumbnails, cached.thumbnails, strict=True):
        assert (a.kind, a.similarity) == (b.kind, b.similarity)
        assert torch.equal(a.before, b.before) and torch.equal(a.after, b.after)


def test_cached_population_is_not_rendered_again(run: Run, edited: MobileStyleGAN, judge: Any, tmp_path: Path) -> None:
    run(edited, cache_dir=tmp_path)
    seen = judge.images_seen
    run(edited, cache_dir=tmp_path)
    assert judge.images_seen - seen == 2 * (1 + 3) + 5


def test_progress_counts_every_image_once(run: Run, edited: MobileStyleGAN) -> None:
    calls: list[tuple[str, int, int]] = []
    run(edited, progress=lambda stage, done, total, values: calls.append((stage, done, total)))
    expected = [("population", i, 12) for i in range(13)] + [("evaluate", i, 20) for i in range(21)]
    assert calls == expected


def test_everybody_has_thumbnails(run: Run, edited: MobileStyleGAN) -> None:
    pairs = run(edited).thumbnails
    assert [pair.kind for pair in pairs] == ["person"] + ["neighbour"] * 3 + ["bystander"] * 5
    worst = min(pairs[4:], key=lambda pair: pair.similarity)
    assert [pair for pair in pairs if pair.most_changed] == [worst]
    assert not torch.equal(pairs[0].before, pairs[0].after)


def test_all_images_may_be_bystanders(run: Run, edited: MobileStyleGAN, config: EvaluateConfig) -> None:
    few = dataclasses.replace(config, bystanders=12, neighbours=0)
    metrics = run(edited, config=few).metrics
    assert metrics["forgotten"] == metrics["forgotten_person"]
    assert metrics["forgotten_neighbours"] == []
    assert metrics["fd_pre"] == pytest.approx(run(edited).metrics["fd_pre"], rel=1e-5)


@pytest.mark.parametrize("radius", [0.5, 4.0])
def test_neighbours_lie_within_the_radius(
    radius: float, base: MobileStyleGAN, source: Latent, config: EvaluateConfig
) -> None:
    many = dataclasses.replace(config, neighbours=200, radius=radius)
    ws = person_with_neighbours(base, source.w, many)
    assert torch.equal(ws[0], source.w)
    distance = (ws[1:] - source.w).flatten(1).norm(dim=1) / math.sqrt(base.num_ws)
    assert distance.max() <= radius * (1 + 1e-5)
    assert distance.mean() == pytest.approx(radius / 2, rel=0.15)  # uniform in length
    assert torch.equal(ws, person_with_neighbours(base, source.w, many))


def test_neighbours_lie_towards_other_people(base: MobileStyleGAN, source: Latent, config: EvaluateConfig) -> None:
    ws = person_with_neighbours(base, source.w, config)
    rows = ws[1:] - source.w  # the source has equal rows, so have neighbours
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))


def test_missing_judge_is_refused_with_the_way_out(run: Run, edited: MobileStyleGAN) -> None:
    with pytest.raises(GuideFastError, match=r"held-out judge is missing.*npm.*assets fetch faceres"):
        run(edited, judge=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": torch.zeros(3, 8)}, r"shape \[3, 8\]"),
        ({"w": torch.full((8, 8), float("nan"))}, "nan"),
        ({"generator": "other"}, "'other'"),
    ],
)
def test_latent_that_does_not_fit_is_refused(
    change: dict[str, Any], said: str, run: Run, edited: MobileStyleGAN, source: Latent
) -> None:
    with pytest.raises(UsageError, match=said):
        run(edited, source=dataclasses.replace(source, **change))


def test_generators_that_do_not_belong_together_are_refused(run: Run) -> None:
    larger = MobileStyleGAN("tiny", z_dim=8, w_dim=8, channels=[16] * 4, slope=0.2, gain=1.0)
    with pytest.raises(UsageError, match="differ in num_ws"):
        run(larger)


def test_evidence_that_holds_has_no_reasons(metrics: dict[str, Any]) -> None:
    assert passed(metrics) == []


def test_limits_belong_to_what_holds(metrics: dict[str, Any]) -> None:
    assert passed(metrics | {"forgotten": 0.42, "stranger_mean": 0.4, "stranger_std": 0.04, "retained": 0.95}) == []


def test_every_shortfall_is_a_sentence_with_its_numbers(metrics: dict[str, Any]) -> None:
    not_forgotten, changed = passed(metrics | {"forgotten": 0.43, "retained": 0.9})
    assert "0.430" in not_forgotten and "0.420" in not_forgotten and "0.390 ± 0.060" in not_forgotten
    assert "0.900" in changed and "0.950" in changed


def test_limits_can_be_set(metrics: dict[str, Any]) -> None:
    assert passed(metrics | {"forgotten": 0.43}, max_stranger_deviations=1.0) == []
    assert len(passed(metrics, min_retained=0.99)) == 1


def test_numbers_that_are_not_numbers_fall_short(metrics: dict[str, Any]) -> None:
    assert len(passed(metrics | {"forgotten": math.nan, "retained": math.nan})) == 2
