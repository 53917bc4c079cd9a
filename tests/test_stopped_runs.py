"""A run from a photo, stopped anywhere, continues to the same bytes; only the same request may continue it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CONFIG, TinyIdentity, TinyPerceptual, person, tiny_generator
from torch import Tensor

from guide_fast import _networks, pipeline
from guide_fast._clock import StageClock
from guide_fast.artifacts import Forgotten, Latent
from guide_fast.config import AlignConfig, Config, InvertConfig
from guide_fast.errors import GuideFastError, RefusedError, UsageError
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, INVERSION, LATENT, SECONDS, STATE, stopped

PHOTO_CONFIG = replace(
    CONFIG, invert=InvertConfig(samples=8, steps_w=6, steps_w_plus=6, resolution=16, min_similarity=-1.0)
)
NETWORKS = {name: seed for seed, name in enumerate(("faceres", "mobileface", "dlib-resnet-v1"))}
STOPS = [("invert", 0), ("invert", 4), ("invert", 9), ("invert", 12), ("preservation bank", 2)]
STOPS += [("choosing the target", 1), ("unlearning", 0), ("unlearning", 2), ("unlearning", 4), ("population", 4)]


class TwoTaps(TinyPerceptual):
    """The bank of the inversion looks at the last tap but one."""

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        return super().features(images, size=size) * 2


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Networks of a few weights; caches in a folder of the test's own; no way to the network."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=NETWORKS[name]))
    monkeypatch.setattr(_networks, "load_perceptual", TwoTaps)


@pytest.fixture
def photo(generator: MobileStyleGAN, tmp_path: Path) -> Path:
    return photo_of(generator, 5, tmp_path / "photo.png")


def photo_of(generator: MobileStyleGAN, seed: int, path: Path) -> Path:
    image = generator.synthesis(person(generator, seed)[None]).image[0].clamp(-1, 1).add(1).mul(127.5)
    Image.fromarray(image.permute(1, 2, 0).byte().numpy().astype(np.uint8)).resize((64, 64)).save(path)
    return path


def interrupt_at(stage: str, done: int) -> Callable[..., None]:
    def progress(now: str, count: int, total: int, values: Mapping[str, float]) -> None:
        if (now, count) == (stage, done):
            raise KeyboardInterrupt

    return progress


def forget(generator: MobileStyleGAN, photo: Path, out: Path, **arguments: Any) -> Forgotten:
    return pipeline.forget(generator, photo=photo, out=out, **{"config": PHOTO_CONFIG, "aligned": True} | arguments)


def stop(generator: MobileStyleGAN, photo: Path, out: Path, stage: str, done: int, **arguments: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        forget(generator, photo, out, progress=interrupt_at(stage, done), **arguments)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(("stage", "done"), STOPS)
def test_stopped_run_continues_to_the_same_bytes(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, stage: str, done: int
) -> None:
    forget(generator, photo, tmp_path / "whole")
    shutil.rmtree(tmp_path / "home")  # where banks are cached, the stages that render them are not entered
    stop(generator, photo, tmp_path / "run", stage, done)
    assert stopped(tmp_path / "run")
    forget(generator, photo, tmp_path / "run", resume=True)
    assert names(tmp_path / "run") == set(FILES)
    for name in ("latent.safetensors", "delta.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_run_stopped_during_the_inversion_leaves_settings_with_its_state(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "invert", 4)
    assert names(tmp_path / "run") == {INVERSION, SECONDS, "config.json", "environment.json"}
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(json.dumps(PHOTO_CONFIG.to_dict()))


def test_run_stopped_before_the_first_step_leaves_nothing(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "sample bank", 8)
    assert not (tmp_path / "run").exists()


def test_refused_inversion_leaves_nothing(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    config = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, min_similarity=1.0))
    with pytest.raises(RefusedError):
        forget(generator, photo, tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_refused_inversion_leaves_an_earlier_run_as_it_is(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    forget(generator, photo, tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    config = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, min_similarity=1.0))
    with pytest.raises(RefusedError):
        forget(generator, photo, tmp_path / "run", config=config)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_stopping_over_an_earlier_run_removes_its_results(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    forget(generator, photo, tmp_path / "run")
    stop(generator, photo, tmp_path / "run", "invert", 4)
    assert names(tmp_path / "run") == {INVERSION, SECONDS, "config.json", "environment.json"}


@pytest.mark.parametrize(("stage", "done"), [("invert", 4), ("preservation bank", 2), ("unlearning", 2)])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"photo": "another"}, "another photo|somebody else"),
        ({"face": 1}, r"another face \(none then, 1 now\)"),
        ({"generator": "another"}, "another generator"),
        ({"config": replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, lr=0.02))}, r"another invert\.lr"),
        ({"config": replace(PHOTO_CONFIG, align=AlignConfig(min_score=0.5))}, r"another align\.min_score"),
        ({"config": replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, seed=1))}, r"another ltu\.seed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_request_may_not_continue(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, stage: str, done: int, change: dict[str, Any], said: str
) -> None:
    stop(generator, photo, tmp_path / "run", stage, done)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    if "photo" in change:
        photo, change = photo_of(generator, 6, tmp_path / "other.png"), {}
    if "generator" in change:
        generator, change = tiny_generator(seed=1), {}
    with pytest.raises(UsageError, match=said):
        forget(generator, photo, tmp_path / "run", resume=True, **change)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(("stage", "done"), [("invert", 4), ("preservation bank", 2)])
def test_photo_taken_otherwise_may_not_continue(
    generator: MobileStyleGAN,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    done: int,
) -> None:
    stop(generator, photo, tmp_path / "run", stage, done)
    align = pipeline.align  # nobody is found on a rendering of 64 px
    monkeypatch.setattr(pipeline, "load_detector", lambda: None)
    monkeypatch.setattr(pipeline, "align", lambda photo, **given: align(photo, **given | {"aligned": True}))
    with pytest.raises(UsageError, match=r"another aligned \(True then, False now\)"):
        forget(generator, photo, tmp_path / "run", resume=True, aligned=False)


def test_latent_says_how_its_photo_was_taken(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    forget(generator, photo, tmp_path / "run")
    request = Latent.load(tmp_path / "run" / LATENT).notes["request"]
    assert (request["face"], request["aligned"]) == (None, True)


class Clock:
    """A second between any two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_clock_adds_sessions(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StageClock(None, Clock()) as clock:
        clock.keep_in(tmp_path)
        clock.begin("inversion")
        clock.begin("bank")
        raise KeyboardInterrupt
    with StageClock(tmp_path, Clock()) as clock:
        clock.begin("bank")
        clock.begin("unlearning")
        assert clock.seconds() == {"inversion": 1.0, "bank": 2.0, "unlearning": 1.0}


def test_clock_keeps_nothing_without_a_folder_or_after_the_end(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StageClock(None):
        raise KeyboardInterrupt
    with StageClock(None) as clock:
        clock.keep_in(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[1]", '{"bank": "x"}'])
def test_damaged_seconds_are_an_error_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / SECONDS).write_text(content)
    with pytest.raises(GuideFastError, match="start anew without --resume"):
        StageClock(tmp_path)


@pytest.mark.parametrize(("stage", "done", "spent"), [("invert", 4, "inversion"), ("unlearning", 2, "unlearning")])
def test_seconds_of_a_resumed_run_count_all_sessions(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, stage: str, done: int, spent: str
) -> None:
    stop(generator, photo, tmp_path / "run", stage, done)
    file = tmp_path / "run" / SECONDS
    before = json.loads(file.read_text())
    assert before[spent] > 0
    file.write_text(json.dumps(before | {spent: before[spent] + 1000}))
    metrics = forget(generator, photo, tmp_path / "run", resume=True).metrics
    assert metrics["seconds_by_stage"][spent] > 1000
    assert metrics["seconds"] == metrics["seconds_by_stage"]["unlearning"]


def test_starting_anew_forgets_the_seconds_of_the_stopped_run(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "invert", 4)
    (tmp_path / "run" / SECONDS).write_text(json.dumps({"inversion": 1000.0}))
    assert forget(generator, photo, tmp_path / "run").metrics["seconds_by_stage"]["inversion"] < 1000


def test_person_of_a_seed_is_stopped_between_the_stages(generator: MobileStyleGAN, tmp_path: Path) -> None:
    config: dict[str, Config] = {"config": CONFIG}
    with pytest.raises(KeyboardInterrupt):
        pipeline.forget(generator, seed=5, out=tmp_path, progress=interrupt_at("choosing the target", 1), **config)
    assert stopped(tmp_path) and not (tmp_path / STATE).exists()
    with pytest.raises(UsageError, match="somebody else"):
        pipeline.forget(generator, seed=6, out=tmp_path, resume=True, **config)
    pipeline.forget(generator, seed=5, out=tmp_path, resume=True, **config)
    assert not stopped(tmp_path)


def test_latent_of_invert_alone_is_no_stopped_run(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG).save(tmp_path / "run" / LATENT)
    assert not stopped(tmp_path / "run")
