"""`guide-fast convert`: one generator file with its settings, nothing in the source run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import named, pickled, small_rosinality, stylegan2_module, text, write_pickle

from guide_fast.artifacts import read_safetensors
from guide_fast.models.checkpoint import read_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pickle({"G": None, "D": None, "G_ema": stylegan2_module()}, tmp_path / "faces.pkl")


def test_convert_writes_a_generator_file_with_its_settings(run: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "faces.safetensors"
    outcome = run("convert", source, out, "--json")
    assert outcome.code == 0
    assert outcome.json["generator"] == str(out)
    tensors, metadata = read_safetensors(out, "generator")
    whole = read_checkpoint(source)
    assert metadata == {"config": whole.config, "lineage": []}
    assert all(torch.equal(tensors[name], value) for name, value in whole.tensors.items())
    beside = json.loads(out.with_suffix(".json").read_text())
    assert beside["config"] == whole.config
    assert beside["format"] == "StyleGAN2-ADA pickle"
    assert beside["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert "licence" in beside["licence"]


def test_converting_twice_gives_the_same_bytes(run: Any, source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("convert", source, tmp_path / f"{name}.safetensors", "-q").code == 0
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_converted_file_converts_to_itself(run: Any, tmp_path: Path) -> None:
    torch.save(small_rosinality(), tmp_path / "r.pt")
    assert run("convert", tmp_path / "r.pt", tmp_path / "a.safetensors").code == 0
    assert run("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors").code == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_dry_run_writes_nothing(run: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.safetensors"
    outcome = run("convert", source, out, "--dry-run", "--json")
    assert outcome.code == 0
    assert outcome.json["would_write"] == [str(out), str(out.with_suffix(".json"))]
    assert outcome.json["dry_run"] is True
    assert not out.exists()
    assert not out.with_suffix(".json").exists()


def test_malicious_file_is_refused_and_nothing_is_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickled(named("os", "system") + text("true") + b"\x85R"))
    outcome = run("convert", tmp_path / "bad.pkl", tmp_path / "out.safetensors")
    assert outcome.code == 4
    assert "os.system" in outcome.stderr
    assert not (tmp_path / "out.safetensors").exists()


def test_wrong_names_are_refused_before_reading(run: Any, source: Path, tmp_path: Path) -> None:
    outcome = run("convert", source, tmp_path / "out.pt")
    assert outcome.code == 2
    assert "out.safetensors" in outcome.stderr
    (tmp_path / "folder.safetensors").mkdir()
    assert run("convert", source, tmp_path / "folder.safetensors").code == 2
    assert run("convert", tmp_path / "none.pkl", tmp_path / "out.safetensors").code == 2


def test_neither_the_source_nor_its_settings_are_overwritten(run: Any, source: Path, tmp_path: Path) -> None:
    source.with_suffix(".json").write_text("{}")
    outcome = run("convert", source, source.with_suffix(".safetensors"))
    assert outcome.code == 2
    assert source.with_suffix(".json").read_text() == "{}"
    same = tmp_path / "same.safetensors"
    assert run("convert", source, same).code == 0
    assert run("convert", same, same).code == 2
