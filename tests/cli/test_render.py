"""`guide-fast render`: images on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def test_each_seed_gives_an_image(run: Any, pipeline: Any, tmp_path: Path) -> None:
    outcome = run("render", "--seed", 7, "--seed", 8, "--out", tmp_path, "--truncation", 0.5, "--json")
    assert outcome.code == 0
    files = [tmp_path / "seed-7.png", tmp_path / "seed-8.png"]
    assert outcome.json["files"] == [str(file) for file in files]
    assert [Image.open(file).size for file in files] == [(4, 4), (4, 4)]
    asked = [arguments for name, arguments in pipeline.calls if name == "render"]
    assert asked == [{"seeds": [7], "truncation": 0.5}, {"seeds": [8], "truncation": 0.5}]


def test_latent_gives_an_image_after_deltas(run: Any, pipeline: Any, delta: Path, tmp_path: Path) -> None:
    outcome = run("render", "--latent", delta / "latent.safetensors", "--delta", delta, "--out", tmp_path / "faces")
    assert outcome.code == 0
    assert (tmp_path / "faces" / "latent.png").is_file()
    assert pipeline.asked("load_generator")["deltas"] == [delta / "delta.safetensors"]


@pytest.mark.parametrize("arguments", [(), ("--seed", 7, "--latent", "w.safetensors")])
def test_one_kind_of_source_is_needed(run: Any, pipeline: Any, arguments: tuple[object, ...]) -> None:
    outcome = run("render", *arguments)
    assert outcome.code == 2
    assert "--latent" in outcome.stderr


def test_negative_seed_is_wrong_use(run: Any, pipeline: Any) -> None:
    outcome = run("render", "--seed", 7, "--seed", -1)
    assert outcome.code == 2
    assert "--seed -1" in outcome.stderr


def test_dry_run_renders_nothing(run: Any, pipeline: Any, tmp_path: Path) -> None:
    outcome = run("render", "--seed", 7, "--out", tmp_path / "faces", "--dry-run", "--json")
    assert outcome.json["would_write"] == [str(tmp_path / "faces" / "seed-7.png")]
    assert not pipeline.calls
    assert not (tmp_path / "faces").exists()
