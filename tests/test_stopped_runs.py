"""A run from a photo, stopped anywhere, continues to the same bytes; only the same request may continue it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stopping import PHOTO_CONFIG, contents, forget, interrupt_at, photo_of, stop
from stopping import ctrl_c as ctrl_c
from stopping import generator as generator
from stopping import photo as photo
from stopping import stand_ins as stand_ins  # fixtures
from tiny import CONFIG, tiny_generator

from guide_fast import pipeline, run_folder
from guide_fast.artifacts import Latent
from guide_fast.config import AlignConfig, Config
from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, INVERSION, LATENT, SPENT, STATE, stopped

pytestmark = pytest.mark.usefixtures("stand_ins")

STOPS = [("invert", 0), ("invert", 4), ("invert", 9), ("invert", 12), ("preservation bank", 2)]
STOPS += [("choosing the target", 1), ("unlearning", 0), ("unlearning", 2), ("unlearning", 4), ("population", 4)]


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


@pytest.mark.parametrize("step", [0, 4, 9])
def test_stopped_inversion_without_a_run_continues_to_the_same_bytes(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, step: int
) -> None:
    state = tmp_path / "latent.stopped.safetensors"
    request: dict[str, Any] = {"photo": photo, "aligned": True, "config": PHOTO_CONFIG, "state": state}
    whole = pipeline.invert_photo(generator, **request)
    assert not state.exists()
    with pytest.raises(KeyboardInterrupt):
        pipeline.invert_photo(generator, **request, progress=interrupt_at("invert", step))
    assert state.is_file()
    other = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, lr=0.1))
    with pytest.raises(UsageError, match=r"invert\.lr"):
        pipeline.invert_photo(generator, **request | {"config": other}, resume=True)
    resumed = pipeline.invert_photo(generator, **request, resume=True)
    whole.save(tmp_path / "whole")
    resumed.save(tmp_path / "resumed")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
    assert not state.exists()


def test_inversion_without_a_state_cannot_be_resumed(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stopped inversion at"):
        pipeline.invert_photo(generator, photo, aligned=True, state=tmp_path / "gone", resume=True)


def test_run_stopped_during_the_inversion_leaves_settings_with_its_state(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "invert", 4)
    assert names(tmp_path / "run") == {INVERSION, SPENT, "config.json", "environment.json"}
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
    before = contents(tmp_path / "run")
    config = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, min_similarity=1.0))
    with pytest.raises(RefusedError):
        forget(generator, photo, tmp_path / "run", config=config)
    assert contents(tmp_path / "run") == before


def test_stopping_over_an_earlier_run_removes_its_results(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    forget(generator, photo, tmp_path / "run")
    stop(generator, photo, tmp_path / "run", "invert", 4)
    assert names(tmp_path / "run") == {INVERSION, SPENT, "config.json", "environment.json"}


@pytest.mark.parametrize(("stage", "done"), [("invert", 4), ("preservation bank", 2), ("unlearning", 2)])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"photo": "another"}, "another photo"),
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
    before = contents(tmp_path / "run")
    if "photo" in change:
        photo, change = photo_of(generator, 6, tmp_path / "other.png"), {}
    if "generator" in change:
        generator, change = tiny_generator(seed=1), {}
    with pytest.raises(UsageError, match=said):
        forget(generator, photo, tmp_path / "run", resume=True, **change)
    assert contents(tmp_path / "run") == before


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


def test_person_of_a_seed_is_stopped_between_the_stages(generator: MobileStyleGAN, tmp_path: Path) -> None:
    config: dict[str, Config] = {"config": CONFIG}
    with pytest.raises(KeyboardInterrupt):
        pipeline.forget(generator, seed=5, out=tmp_path, progress=interrupt_at("choosing the target", 1), **config)
    assert stopped(tmp_path) and not (tmp_path / STATE).exists()
    with pytest.raises(UsageError, match=r"another seed \(5 then, 6 now\)"):
        pipeline.forget(generator, seed=6, out=tmp_path, resume=True, **config)
    pipeline.forget(generator, seed=5, out=tmp_path, resume=True, **config)
    assert not stopped(tmp_path)


def test_latent_of_invert_alone_is_no_stopped_run(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG).save(tmp_path / "run" / LATENT)
    assert not stopped(tmp_path / "run")


@pytest.mark.parametrize(
    ("invert", "said"),
    [
        ({"lr": 0.02}, r"another invert\.lr \(0\.02 then, 0\.05 now\)"),
        ({"min_similarity": -0.5}, r"another invert\.min_similarity \(-0\.5 then, -1\.0 now\)"),
    ],
)
def test_latent_that_invert_wrote_over_a_stopped_run_may_not_continue_it(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, invert: dict[str, float], said: str
) -> None:
    stop(generator, photo, tmp_path / "run", "preservation bank", 2)
    other = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, **invert))
    pipeline.invert_photo(generator, photo, aligned=True, config=other).save(tmp_path / "run" / LATENT)
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError, match=said):
        forget(generator, photo, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_latent_that_invert_wrote_for_the_same_request_is_as_good(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    forget(generator, photo, tmp_path / "whole")
    stop(generator, photo, tmp_path / "run", "choosing the target", 1)
    pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG).save(tmp_path / "run" / LATENT)
    forget(generator, photo, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run")["delta.safetensors"] == contents(tmp_path / "whole")["delta.safetensors"]


@pytest.mark.parametrize("source", ["seed", "latent"])
def test_run_without_a_photo_may_not_continue_on_another_generator(
    generator: MobileStyleGAN, tmp_path: Path, source: str
) -> None:
    given: dict[str, Any] = {"seed": 5}
    if source == "latent":
        z_of_5 = pipeline.forget(generator, seed=5, config=CONFIG).source
        given = {"latent": z_of_5}
    with pytest.raises(KeyboardInterrupt):
        pipeline.forget(
            generator, **given, out=tmp_path / "run", config=CONFIG, progress=interrupt_at("choosing the target", 1)
        )
    before = contents(tmp_path / "run")
    assert STATE not in before
    generator.to_img.bias.add_(0.5)  # maps every seed as before
    with pytest.raises(UsageError, match="another generator"):
        pipeline.forget(generator, **given, out=tmp_path / "run", config=CONFIG, resume=True)
    assert contents(tmp_path / "run") == before


def test_latent_with_a_flipped_bit_may_not_continue(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    stop(generator, photo, tmp_path / "run", "preservation bank", 2)
    file = tmp_path / "run" / LATENT
    file.write_bytes(file.read_bytes()[:-2] + bytes([file.read_bytes()[-2] ^ 1]) + file.read_bytes()[-1:])
    with pytest.raises(IntegrityError, match=r"bytes of .* are damaged; start anew without --resume"):
        forget(generator, photo, tmp_path / "run", resume=True)


def test_finished_run_is_not_resumed(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    forget(generator, photo, tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError, match="holds no stopped run to resume"):
        forget(generator, photo, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_resuming_needs_a_folder(generator: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match="no folder was named"):
        pipeline.forget(generator, seed=5, config=CONFIG, resume=True)


def full_disk(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """No file called one of `names` can be written any more; without names, none at all."""
    replace_file = os.replace

    def refuse(source: Any, target: Any) -> None:
        if not names or Path(target).name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", refuse)


def test_full_disk_spares_the_latent_that_was_given(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(generator, photo, tmp_path / "run")
    before = contents(tmp_path / "run")
    full_disk(monkeypatch)
    with pytest.raises(GuideFastError, match=r"latent\.safetensors: No space left"):
        pipeline.forget(
            generator, latent=Latent.load(tmp_path / "run" / LATENT), out=tmp_path / "run", config=PHOTO_CONFIG
        )
    assert contents(tmp_path / "run") == before


def test_latent_of_a_run_can_be_given_to_a_run_in_its_folder(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    w = forget(generator, photo, tmp_path / "run").source.w
    given = {"latent": Latent.load(tmp_path / "run" / LATENT), "out": tmp_path / "run", "config": PHOTO_CONFIG}
    with pytest.raises(KeyboardInterrupt):
        pipeline.forget(generator, **given, progress=interrupt_at("unlearning", 2))
    given["latent"] = Latent.load(tmp_path / "run" / LATENT)
    assert pipeline.forget(generator, **given, resume=True).source.w.equal(w)


def test_full_disk_at_the_end_names_the_delta_and_can_be_resumed(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(generator, photo, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(GuideFastError, match=r"delta\.safetensors: No space left"):
        full_disk(patched, "delta.safetensors", SPENT)
        forget(generator, photo, tmp_path / "run")
    forget(generator, photo, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run")["delta.safetensors"] == contents(tmp_path / "whole")["delta.safetensors"]


def test_full_disk_for_the_seconds_stays_ctrl_c(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, SPENT)
    stop(generator, photo, tmp_path / "run", "unlearning", 2)
    assert set(contents(tmp_path / "run")) == {STATE, LATENT, "config.json", "environment.json"}


REFUSED = {
    "layers": (replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, layers="to_img.*")), r"past the 16 px output"),
    "resolution": (replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, resolution=17)), "is no output of tiny"),
    "switch": (replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, cuda_graph="on")), "needs a CUDA device"),
    "target": (replace(PHOTO_CONFIG, target=replace(CONFIG.target, max_similarity=-1.0)), "target resembles"),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("earlier", ["nothing", "finished", "stopped"])
def test_refused_run_leaves_the_folder_as_it_was(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, reason: str, earlier: str
) -> None:
    (tmp_path / "run").mkdir()
    if earlier == "finished":
        forget(generator, photo, tmp_path / "run")
    elif earlier == "stopped":
        stop(generator, photo, tmp_path / "run", "unlearning", 2)
    before = contents(tmp_path / "run")
    config, said = REFUSED[reason]
    with pytest.raises(GuideFastError, match=said):
        forget(generator, photo, tmp_path / "run", config=config)
    assert contents(tmp_path / "run") == before


def test_layers_that_no_step_sees_are_refused_before_the_inversion(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with pytest.raises(UsageError):
        forget(
            generator, photo, tmp_path / "run", config=REFUSED["layers"][0], progress=lambda *now: told.append(now[0])
        )
    assert not told


def test_poor_inversion_that_force_let_pass_needs_it_again(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    config = replace(PHOTO_CONFIG, invert=replace(PHOTO_CONFIG.invert, min_similarity=1.0))
    stop(generator, photo, tmp_path / "run", "preservation bank", 2, config=config, force=True)
    before = contents(tmp_path / "run")
    with pytest.raises(RefusedError, match="shows somebody else"):
        forget(generator, photo, tmp_path / "run", config=config, resume=True)
    assert contents(tmp_path / "run") == before
    forget(generator, photo, tmp_path / "run", config=config, resume=True, force=True)


@pytest.mark.parametrize("when", ["latent", "settings", "environment"])
def test_ctrl_c_while_the_folder_is_opened_loses_no_inversion(
    generator: MobileStyleGAN,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ctrl_c: Callable[[], None],
    when: str,
) -> None:

    def press_first(function: Callable[..., Any]) -> Callable[..., Any]:
        def pressed(*arguments: Any, **named: Any) -> Any:
            ctrl_c()
            return function(*arguments, **named)

        return pressed

    owner, name = {
        "latent": (Latent, "save"),
        "settings": (run_folder, "write_json"),
        "environment": (run_folder, "environment"),
    }[when]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, name, press_first(getattr(owner, name)))
        forget(generator, photo, tmp_path / "run")
    told: list[str] = []
    forget(generator, photo, tmp_path / "run", resume=True, progress=lambda *now: told.append(now[0]))
    assert "invert" not in told
    assert set(contents(tmp_path / "run")) == set(FILES)
