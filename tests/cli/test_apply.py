"""`guide-fast apply`, `guide-fast rollback`: exact, checked, one file written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from guide_fast.artifacts import Delta
from guide_fast.errors import UsageError


def test_apply_writes_the_promised_weights(run: Any, pipeline: Any, delta: Path, tmp_path: Path) -> None:
    outcome = run("apply", delta, "--out", tmp_path / "g.safetensors", "--json")
    promised = Delta.load(delta / "delta.safetensors").result_sha256
    assert outcome.code == 0
    assert outcome.json["sha256"] == promised
    assert (tmp_path / "g.safetensors").read_text(encoding="utf-8") == promised


def test_rollback_undoes_the_last_delta_first(
    run: Any, pipeline: Any, delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Delta.load(delta / "delta.safetensors")
    swapped = {"base_sha256": first.result_sha256, "result_sha256": first.base_sha256}
    dataclasses.replace(first, **swapped).save(tmp_path / "second.safetensors")
    arguments = ("rollback", delta, tmp_path / "second.safetensors", "--generator", "both.safetensors")
    outcome = run(*arguments, "--out", tmp_path / "restored.safetensors", "--json")
    assert outcome.code == 0
    undone = [arguments["delta"].base_sha256 for name, arguments in pipeline.calls if name == "apply_delta"]
    assert undone == [first.result_sha256, first.base_sha256]
    assert outcome.json["sha256"] == first.base_sha256


def test_rollback_needs_a_generator_file(run: Any, delta: Path) -> None:
    outcome = run("rollback", delta, "--out", "x.safetensors")
    assert outcome.code == 2
    assert "--generator" in outcome.stderr


def test_weights_other_than_promised_are_never_written(run: Any, pipeline: Any, delta: Path, tmp_path: Path) -> None:
    wrong = dataclasses.replace(Delta.load(delta / "delta.safetensors"), result_sha256="0" * 64)
    wrong.save(tmp_path / "wrong.safetensors")
    outcome = run("apply", tmp_path / "wrong.safetensors", "--out", tmp_path / "g.safetensors")
    assert outcome.code == 5
    assert "wrong.safetensors promises 000000000000" in outcome.stderr
    assert not (tmp_path / "g.safetensors").exists()


def test_dry_run_writes_nothing(run: Any, pipeline: Any, delta: Path, tmp_path: Path) -> None:
    outcome = run("apply", delta, "--out", tmp_path / "g.safetensors", "--dry-run")
    assert outcome.code == 0
    assert "Nothing was changed." in outcome.stdout
    assert not (tmp_path / "g.safetensors").exists()


@pytest.mark.parametrize("command", [("apply",), ("rollback", "--generator", "g.safetensors")], ids=lambda c: c[0])
def test_folder_as_output_is_wrong_use(run: Any, pipeline: Any, delta: Path, tmp_path: Path, command: Any) -> None:
    outcome = run(*command, delta, "--out", tmp_path)
    assert outcome.code == 2
    assert "is a folder" in outcome.stderr


def test_delta_that_does_not_exist_is_wrong_use(run: Any, pipeline: Any, tmp_path: Path) -> None:
    outcome = run("apply", tmp_path / "absent.safetensors", "--out", tmp_path / "g.safetensors")
    assert outcome.code == 2
    assert "absent.safetensors does not exist" in outcome.stderr


def test_delta_of_another_generator_is_wrong_use(
    run: Any, pipeline: Any, delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(generator: Any, delta: Delta) -> None:
        raise UsageError("the delta belongs to weights ab, these are cd")

    monkeypatch.setattr("guide_fast.pipeline.apply_delta", refuse)
    outcome = run("apply", delta, "--out", tmp_path / "g.safetensors")
    assert outcome.code == 2
    assert not (tmp_path / "g.safetensors").exists()
