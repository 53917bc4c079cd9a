"""`guide-fast evaluate`: the delta of a run, measured again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def test_run_folder_names_delta_with_latent(run: Any, pipeline: Any, delta: Path) -> None:
    outcome = run("evaluate", delta, "--run-seed", 5, "--json")
    assert outcome.code == 0
    asked = pipeline.asked("evaluate_delta")
    assert (asked["delta"].generator, asked["latent"].origin) == ("tiny", "seed:7")
    assert (asked["out"], asked["config"].evaluate.seed) == (delta / "evaluation", 5)
    assert outcome.json["metrics"]["retained"] == 0.97


def test_files_can_lie_apart(run: Any, pipeline: Any, delta: Path, tmp_path: Path) -> None:
    latent = tmp_path / "elsewhere.safetensors"
    shutil.move(delta / "latent.safetensors", latent)
    assert run("evaluate", delta / "delta.safetensors", "--latent", latent, "--out", tmp_path / "e").code == 0
    assert pipeline.asked("evaluate_delta")["out"] == tmp_path / "e"


def test_missing_latent_is_wrong_use(run: Any, pipeline: Any, delta: Path) -> None:
    (delta / "latent.safetensors").unlink()
    outcome = run("evaluate", delta)
    assert outcome.code == 2
    assert "latent.safetensors does not exist" in outcome.stderr


def test_shortfalls_exit_three(run: Any, pipeline: Any, delta: Path) -> None:
    pipeline.metrics |= {"shortfalls": ["too little"]}
    assert run("evaluate", delta).code == 3


def test_dry_run_measures_nothing(run: Any, pipeline: Any, delta: Path) -> None:
    outcome = run("evaluate", delta, "--dry-run")
    assert outcome.code == 0
    assert not pipeline.calls
    assert not (delta / "evaluation").exists()
