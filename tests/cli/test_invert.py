"""`guide-fast invert`: a photo becomes a latent file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guide_fast.artifacts import Latent

STATE = Path("out/me/latent.stopped.safetensors")


@pytest.fixture(autouse=True)
def in_a_folder_with_a_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("me.jpg").touch()


def test_latent_is_written_with_its_similarity(run: Any, pipeline: Any) -> None:
    outcome = run("invert", "--photo", "me.jpg", "--face", 1, "--run-seed", 4, "--json")
    assert outcome.code == 0
    assert outcome.json["similarity"] == 0.8
    assert Latent.load(Path(outcome.json["latent"])).origin == "photo:ab"
    asked = pipeline.asked("invert_photo")
    assert (asked["photo"], asked["face"], asked["config"].ltu.seed) == (Path("me.jpg"), 1, 4)


def test_default_file_carries_the_photo_name(run: Any, pipeline: Any) -> None:
    assert "out/me/latent.safetensors" in run("invert", "--photo", "me.jpg").stdout


def test_interrupt_says_that_there_is_nothing_to_resume(
    run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("guide_fast.pipeline.invert_photo", stop)
    outcome = run("invert", "--photo", "me.jpg", "--quiet")
    assert outcome.code == 130
    assert outcome.stderr == "guide-fast: stopped with nothing to resume; run the same command to start again\n"
    assert [path.name for path in Path().iterdir()] == ["me.jpg"]


def test_interrupt_that_left_a_state_says_how_to_go_on(
    run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, state: Path, **named: Any) -> None:
        state.parent.mkdir(parents=True)
        state.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("guide_fast.pipeline.invert_photo", stop)
    outcome = run("invert", "--photo", "me.jpg", "--quiet")
    assert outcome.code == 130
    assert outcome.stderr == (
        "guide-fast: stopped; continue with `guide-fast invert --photo me.jpg --quiet --resume`\n"
    )
    assert STATE.is_file()


def test_resume_goes_on_from_the_state_beside_the_latent(run: Any, pipeline: Any) -> None:
    STATE.parent.mkdir(parents=True)
    STATE.touch()
    assert run("invert", "--photo", "me.jpg", "--resume").code == 0
    asked = pipeline.asked("invert_photo")
    assert (asked["state"], asked["resume"]) == (STATE, True)


def test_resume_without_a_state_is_wrong_use(run: Any, pipeline: Any) -> None:
    outcome = run("invert", "--photo", "me.jpg", "--resume")
    assert outcome.code == 2
    assert "no stopped search for out/me/latent.safetensors" in outcome.stderr
    assert not pipeline.calls


def test_absent_photo_is_told_before_any_work(run: Any, pipeline: Any) -> None:
    outcome = run("invert", "--photo", "gone.jpg")
    assert outcome.code == 2
    assert "gone.jpg does not exist" in outcome.stderr
    assert not pipeline.calls


def test_folder_as_output_is_wrong_use(run: Any, pipeline: Any, tmp_path: Path) -> None:
    outcome = run("invert", "--photo", "me.jpg", "--out", tmp_path)
    assert outcome.code == 2
    assert "is a folder" in outcome.stderr


def test_dry_run_writes_nothing(run: Any, pipeline: Any) -> None:
    outcome = run("invert", "--photo", "me.jpg", "--dry-run", "--json")
    assert outcome.json["would_write"] == ["out/me/latent.safetensors"]
    assert not pipeline.calls
    assert [path.name for path in Path().iterdir()] == ["me.jpg"]


def test_dry_run_sees_that_the_photo_is_absent(run: Any, pipeline: Any) -> None:
    assert run("invert", "--photo", "absent.jpg", "--dry-run").code == 2


@pytest.mark.parametrize("flag", [[], ["--quick"]])
def test_quick_leaves_the_refinement_out(run: Any, pipeline: Any, flag: list[str]) -> None:
    assert run("invert", "--photo", "me.jpg", *flag).code == 0
    assert pipeline.asked("invert_photo")["config"].invert.refine is not bool(flag)
