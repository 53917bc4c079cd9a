"""`guide-fast invert`: a photo becomes a latent file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guide_fast.artifacts import Latent


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    assert not list(Path().iterdir())


def test_folder_as_output_is_wrong_use(run: Any, pipeline: Any, tmp_path: Path) -> None:
    outcome = run("invert", "--photo", "me.jpg", "--out", tmp_path)
    assert outcome.code == 2
    assert "is a folder" in outcome.stderr


def test_dry_run_writes_nothing(run: Any, pipeline: Any) -> None:
    Path("me.jpg").touch()
    outcome = run("invert", "--photo", "me.jpg", "--dry-run", "--json")
    assert outcome.json["would_write"] == ["out/me/latent.safetensors"]
    assert not pipeline.calls
    assert [path.name for path in Path().iterdir()] == ["me.jpg"]


def test_dry_run_sees_that_the_photo_is_absent(run: Any, pipeline: Any) -> None:
    assert run("invert", "--photo", "absent.jpg", "--dry-run").code == 2
