"""From a seed or a latent to a run folder, with a generator of 32 px and stand-ins for the networks."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stopping import NETWORKS, interrupt_at
from stopping import generator as generator  # a fixture
from tiny import CONFIG, TinyIdentity, TinyPerceptual, person, tiny_generator

from guide_fast import _generators, _networks, pipeline
from guide_fast.artifacts import Delta, Forgotten, Latent, weights_sha256
from guide_fast.config import Config, LtuConfig
from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.ltu.step import Step
from guide_fast.models import loading
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, STATE


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Networks of a few weights; caches in a folder of the test's own; no way to the network."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=NETWORKS[name]))
    monkeypatch.setattr(_networks, "load_perceptual", TinyPerceptual)


def forget(generator: MobileStyleGAN, **arguments: Any) -> Forgotten:
    source = {} if {"seed", "latent", "photo"} & arguments.keys() else {"seed": 777}
    return pipeline.forget(generator, **{"config": CONFIG} | source | arguments)


def test_run_leaves_every_file(generator: MobileStyleGAN, tmp_path: Path) -> None:
    result = forget(generator, out=tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} == set(FILES)
    assert Delta.load(tmp_path / "run" / "delta.safetensors").sha256 == result.delta.sha256
    assert torch.equal(Latent.load(tmp_path / "run" / "latent.safetensors").w, result.source.w)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["delta_bytes"] == (tmp_path / "run" / "delta.safetensors").stat().st_size
    assert metrics["origin"] == "seed:777"
    assert metrics["forgotten"] == result.metrics["forgotten"]
    assert [point["step"] for point in metrics["curve"]] == [0, 1, 2, 3]
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == CONFIG.to_dict()
    with Image.open(tmp_path / "run" / "grid.png") as grid:
        grid.verify()
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_delta_turns_the_base_into_what_was_measured(generator: MobileStyleGAN) -> None:
    before = weights_sha256(generator)
    result = forget(generator)
    assert weights_sha256(generator) == before == result.delta.base_sha256
    changed = pipeline.apply_delta(copy.deepcopy(generator), result.delta)
    assert weights_sha256(changed) == result.delta.result_sha256 != before
    report = pipeline.evaluate_delta(generator, result.delta, result.source, config=CONFIG)
    for name in ("forgotten", "retained", "fd_pre", "stranger_mean", "shortfalls"):
        assert report.metrics[name] == result.metrics[name]


def test_equal_requests_leave_equal_deltas(generator: MobileStyleGAN, tmp_path: Path) -> None:
    for name in ("a", "b"):
        forget(generator, out=tmp_path / name)
    a, b = (tmp_path / name / "delta.safetensors" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("falls_short", [True, False])
def test_shortfalls_say_where_the_evidence_falls_short(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, falls_short: bool
) -> None:
    found = ["retained 0.5 is below 0.95"] if falls_short else []
    monkeypatch.setattr(pipeline, "passed", lambda metrics: found)
    assert forget(generator).metrics["shortfalls"] == found


def test_run_that_forgets_next_to_nothing_falls_short(generator: MobileStyleGAN) -> None:
    ltu = replace(CONFIG.ltu, steps=1, lr=1e-9, warm_start=False, layers="conv1.modulation")
    assert forget(generator, config=replace(CONFIG, ltu=ltu)).metrics["shortfalls"]


@pytest.mark.parametrize(("stage", "done"), [("unlearning", 0), ("unlearning", 2), ("unlearning", 4)])
def test_interrupted_run_resumes_to_the_same_delta(
    generator: MobileStyleGAN, tmp_path: Path, stage: str, done: int
) -> None:
    forget(generator, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        forget(generator, out=tmp_path / "run", progress=interrupt_at(stage, done))
    assert (tmp_path / "run" / STATE).is_file()
    forget(generator, out=tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / STATE).exists()
    whole, resumed = (tmp_path / name / "delta.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_resuming_with_other_settings_is_refused(generator: MobileStyleGAN, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        forget(generator, out=tmp_path, progress=interrupt_at("unlearning", 2))
    other = replace(CONFIG, ltu=replace(CONFIG.ltu, steps=5))
    with pytest.raises(UsageError, match=r"another ltu\.steps \(4 then, 5 now\); ask for the same"):
        forget(generator, out=tmp_path, resume=True, config=other)


def test_resuming_with_another_person_is_refused(generator: MobileStyleGAN, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        forget(generator, out=tmp_path, progress=interrupt_at("unlearning", 2))
    with pytest.raises(UsageError, match=r"another seed \(777 then, 778 now\)"):
        forget(generator, seed=778, out=tmp_path, resume=True)


def test_resuming_on_another_generator_is_refused(generator: MobileStyleGAN, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        forget(generator, out=tmp_path, progress=interrupt_at("unlearning", 2))
    with pytest.raises(UsageError, match=r"another generator \([0-9a-f]{12} then, [0-9a-f]{12} now\)"):
        forget(tiny_generator(seed=1), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"seed": None}, "nobody given"),
        ({"seed": 1, "latent": torch.zeros(8, 16)}, "seed and latent given"),
        ({"seed": 1, "photo": "a.png"}, "photo and seed given"),
        ({"seed": 1, "photo": "a.png", "latent": torch.zeros(8, 16)}, "photo and seed and latent given"),
    ],
)
def test_anything_but_one_source_is_refused(generator: MobileStyleGAN, source: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"{said}; name the person by exactly one of photo, seed, latent"):
        forget(generator, **source)


@pytest.mark.parametrize(
    ("latent", "said"),
    [
        (torch.zeros(7, 16), r"shape \[7, 16\], tiny takes \[8, 16\]"),
        (torch.full((8, 16), torch.nan), r"the latent holds nan at \[0, 0\]"),
        (Latent(torch.zeros(8, 16), "another", "seed:1"), "belongs to another, the generator is tiny"),
    ],
    ids=["shape", "nan", "generator"],
)
def test_latent_that_does_not_fit_is_refused(generator: MobileStyleGAN, latent: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        forget(generator, latent=latent)


def test_latent_of_a_seed_forgets_the_seed(generator: MobileStyleGAN) -> None:
    by_seed = forget(generator)
    by_latent = forget(generator, latent=person(generator, 777))
    assert by_latent.delta.result_sha256 == by_seed.delta.result_sha256
    assert by_latent.metrics["origin"] == "tensor"


@pytest.mark.parametrize(
    ("ltu", "said"),
    [
        (replace(CONFIG.ltu, layers="conv9"), "no layer of tiny matches 'conv9'"),
        (replace(CONFIG.ltu, resolution=17), r"ltu\.resolution = 17 is no output of tiny"),
    ],
)
def test_settings_that_the_generator_lacks_are_refused(generator: MobileStyleGAN, ltu: LtuConfig, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        forget(generator, config=replace(CONFIG, ltu=ltu))


def test_layers_that_the_small_image_does_not_show_are_refused(generator: MobileStyleGAN) -> None:
    ltu = replace(CONFIG.ltu, layers="to_img.*")
    with pytest.raises(UsageError, match=r"ltu\.layers = to_img\.\* names only layers past the 16 px output"):
        forget(generator, config=replace(CONFIG, ltu=ltu))


def test_bad_request_leaves_no_folder(generator: MobileStyleGAN, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        forget(generator, latent=torch.zeros(7, 16), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_judge_stops_the_run_before_any_work(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str) -> TinyIdentity:
        raise GuideFastError(f"{name} cannot be fetched")

    monkeypatch.setattr(_networks, "load_identity", absent)
    with pytest.raises(GuideFastError, match=r"held-out judge is missing and .* for it: faceres cannot be fetched"):
        forget(generator, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_third_opinion_is_not_called_the_judge(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> TinyIdentity:
        if name == "mobileface":
            raise GuideFastError(f"{name} cannot be fetched")
        return TinyIdentity(name)

    monkeypatch.setattr(_networks, "load_identity", load)
    with pytest.raises(GuideFastError, match=r"^the third opinion is missing and .*: mobileface cannot be fetched"):
        forget(generator)


def test_brought_networks_report_but_never_enter_the_loss(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = forget(generator)
    monkeypatch.setattr(_networks.brought, "available", lambda name: True)
    seeds = NETWORKS | {_networks.CURRICULARFACE: 77}
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=seeds[name]))
    monkeypatch.setattr(_networks, "load_perceptual", lambda name=_networks.PERCEPTUAL: TinyPerceptual())
    result = forget(generator, out=tmp_path / "run")
    assert result.delta.sha256 == plain.delta.sha256  # the same steps through the same losses
    assert result.metrics["judge"] == plain.metrics["judge"] == _networks.JUDGE
    assert {"id_curricularface", "fid_inception"} == result.metrics.keys() - plain.metrics.keys() - {"delta_bytes"}
    assert result.metrics["id_curricularface"]["name"] == _networks.CURRICULARFACE
    assert result.metrics["fid_inception"] == result.metrics["fd_pre"] == plain.metrics["fd_pre"]
    assert "curricularface-ir101: brought by you: licence unknown" in (tmp_path / "run" / "report.html").read_text()


def test_changed_brought_network_stops_the_run_before_any_work(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = _networks.load_identity

    def tampered(name: str) -> TinyIdentity:
        if name == _networks.CURRICULARFACE:
            raise IntegrityError("other bytes than were added")
        return load(name)

    monkeypatch.setattr(_networks.brought, "available", lambda name: name == _networks.CURRICULARFACE)
    monkeypatch.setattr(_networks, "load_identity", tampered)
    with pytest.raises(IntegrityError, match="other bytes than were added"):
        forget(generator, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_target_that_resembles_the_person_is_refused(generator: MobileStyleGAN) -> None:
    target = replace(CONFIG.target, max_similarity=-1.0, max_pushes=0)
    with pytest.raises(RefusedError):
        forget(generator, config=replace(CONFIG, target=target))


def test_evaluation_leaves_metrics_with_pictures(generator: MobileStyleGAN, tmp_path: Path) -> None:
    result = forget(generator)
    pipeline.evaluate_delta(generator, result.delta, result.source, config=CONFIG, out=tmp_path / "e")
    assert {file.name for file in (tmp_path / "e").iterdir()} == {"metrics.json", "grid.png"}
    with pytest.raises(UsageError, match="can only be applied to"):
        pipeline.evaluate_delta(tiny_generator(seed=1), result.delta, result.source, config=CONFIG)


def test_second_request_stacks_on_the_first(generator: MobileStyleGAN, tmp_path: Path) -> None:
    first = forget(generator, out=tmp_path / "first")
    loading.save(generator, tmp_path / "base.safetensors")
    load = {"low_resolution": False}
    once = pipeline.load_generator(
        tmp_path / "base.safetensors", deltas=[tmp_path / "first" / "delta.safetensors"], **load
    )
    second = forget(once, seed=778)
    assert second.delta.parent_sha256 == first.delta.sha256
    both = pipeline.load_generator(tmp_path / "base.safetensors", deltas=[first.delta, second.delta], **load)
    assert weights_sha256(both) == second.delta.result_sha256
    with pytest.raises(UsageError, match="in order"):
        pipeline.load_generator(tmp_path / "base.safetensors", deltas=[second.delta, first.delta], **load)


def test_generator_written_with_a_delta_gets_a_small_output_of_its_own(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(Config(), ltu=replace(Config().ltu, resolution=16))
    monkeypatch.setattr(_generators, "Config", lambda: config)  # the tiny generator has no 256 px
    loading.save(generator, tmp_path / "base.safetensors")
    delta = forget(generator).delta
    stacked = pipeline.load_generator(tmp_path / "base.safetensors", deltas=[delta])
    loading.save(stacked, tmp_path / "forgotten.safetensors")
    from_file = pipeline.load_generator(tmp_path / "forgotten.safetensors")
    assert weights_sha256(from_file) == weights_sha256(stacked) == delta.result_sha256
    assert not torch.equal(from_file.heads["16"].weight, stacked.heads["16"].weight)
    # the same weights with different small images: neither may take the other's cached bank
    apart = forget(from_file, seed=778)
    shutil.rmtree(tmp_path / "home")
    assert forget(stacked, seed=778).delta.result_sha256 != apart.delta.result_sha256
    after = forget(from_file, seed=778)
    assert after.delta.sha256 == apart.delta.sha256
    assert after.delta.parent_sha256 == delta.sha256


def test_render_gives_one_image_a_seed(generator: MobileStyleGAN) -> None:
    one, other = pipeline.render(generator, seeds=[1, 2])
    assert one.size == other.size == (32, 32)
    assert np.array_equal(one, pipeline.render(generator, seeds=[1])[0])
    assert np.array_equal(one, pipeline.render(generator, latent=person(generator, 1))[0])
    assert not np.array_equal(one, other)


def test_truncation_to_zero_renders_the_mean(generator: MobileStyleGAN) -> None:
    one, other = pipeline.render(generator, seeds=[1, 2], truncation=0.0)
    assert np.array_equal(one, other)


def test_judge_confirms_at_full_resolution_before_the_steps_end(
    generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, asked = pipeline.judged, []

    def ask(*arguments: Any, **named: Any) -> tuple[float, float]:
        asked.append(judged(*arguments, **named))
        return asked[-1]

    monkeypatch.setattr(pipeline, "judged", ask)
    early = replace(CONFIG.ltu, reached=1.0, hold=1, confirm=True)
    result = forget(generator, config=replace(CONFIG, ltu=early))
    assert asked[-1][1] == pytest.approx(result.metrics["stranger_mean"])
    assert asked[-1][0] == pytest.approx(result.metrics["forgotten_person"], abs=1e-4)
    assert result.metrics["stopped"] == ("confirmed" if asked[-1][0] <= asked[-1][1] else "steps")
    assert result.report.curve[-1]["judged"] == asked[-1][0]
    without = forget(generator, config=replace(CONFIG, ltu=replace(early, confirm=False)))
    assert without.metrics["stopped"] == "reached" and len(asked) == result.metrics["steps"]


def test_memory_that_ran_out_is_said_in_the_metrics(generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Step.losses

    def limited(step: Step, student: Any, draws: Any, start: int, stop: int) -> Any:
        if stop - start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(step, student, draws, start, stop)

    monkeypatch.setattr(Step, "losses", limited)
    (note,) = forget(generator).metrics["notes"]
    assert "memory ran out at step 0: from there 3 of a step's 5 images" in note
