"""`guide-fast export` writes a folder, says what it wrote, refuses in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_generator

from guide_fast.deltas import make_delta
from guide_fast.export.folder import ExportedGenerator, file_sha256
from guide_fast.models import loading
from guide_fast.models.mobile_stylegan import MobileStyleGAN

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "tiny.safetensors"
    loading.save(tiny_generator(), path)
    return path


def other() -> MobileStyleGAN:
    changed = tiny_generator()
    changed.to_img.bias.data += 0.5
    return changed


def delta_between(base: Any, changed: Any, path: Path) -> Path:
    make_delta(base, changed, config={}, seeds={}, metrics={}).save(path)
    return path


def test_export_writes_what_it_says(run: Callable[..., Any], generator: Path, tmp_path: Path) -> None:
    out = tmp_path / "onnx"
    delta = delta_between(tiny_generator(), other(), tmp_path / "d.safetensors")
    done = run("export", generator, "--out", out, "--delta", delta, "--json", "--quiet")
    assert done.code == 0, done.stderr
    said = done.json
    assert {file["name"]: file["sha256"] for file in said["files"]} == {
        name: file_sha256(out / f"{name}.onnx") for name in ("mapping", "synthesis")
    }
    engine = ExportedGenerator.load(out)
    assert said["weights_sha256"] == engine.weights_sha256
    assert said["lineage"] == list(engine.lineage) == [file_sha256(delta)]
    assert 0 < said["max_of_range"]["image"] <= 1e-4
    assert "licence" in said

    again = run("export", generator, "--out", out)
    assert again.code == 2
    assert "--force" in again.stderr
    forced = run("export", generator, "--out", out, "--force", "--quiet")
    assert forced.code == 0
    assert "Farthest from PyTorch" in forced.stdout
    assert ExportedGenerator.load(out).lineage == ()


def test_dry_run_writes_nothing(run: Callable[..., Any], generator: Path, tmp_path: Path) -> None:
    done = run("export", generator, "--out", tmp_path / "onnx", "--dry-run", "--json")
    assert done.code == 0
    assert done.json["dry_run"] is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_delta_for_another_base_is_refused(
    run: Callable[..., Any], generator: Path, tmp_path: Path, dry: list[str]
) -> None:
    delta = delta_between(other(), tiny_generator(), tmp_path / "d.safetensors")
    done = run("export", generator, "--out", tmp_path / "onnx", "--delta", delta, *dry)
    assert done.code == 2
    assert "can only be applied to weights with sha256" in done.stderr
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "core-ml"], "'core-ml' is not known"),
        (["--precision", "int4"], "precision='int4'"),
        (["--noise", "random"], "noise='random'"),
    ],
)
def test_unknown_choices_are_wrong_use(
    run: Callable[..., Any], generator: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    done = run("export", generator, "--out", tmp_path / "onnx", *options)
    assert done.code == 2
    assert said in done.stderr


def test_a_missing_extra_says_what_to_install(
    run: Callable[..., Any], generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    done = run("export", generator, "--out", tmp_path / "onnx")
    assert done.code == 1
    assert 'run `pip install "guide-fast[export]"`' in done.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(
    run: Callable[..., Any], generator: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = run("export", generator, "--out", tmp_path / "file" / "onnx")
    assert done.code in (1, 2)
    assert done.stderr.count("\n") == 1
    if os.geteuid() != 0:  # root may write anywhere
        tmp_path.chmod(0o500)
        refused = run("export", generator, "--out", tmp_path / "onnx")
        tmp_path.chmod(0o700)
        assert refused.code == 1
        assert "cannot write" in refused.stderr
