"""`guide-fast assets build`: the encoder that is trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import Averages, TinyIdentity, tiny_generator

from guide_fast import _networks, built, pipeline
from guide_fast.models.encoders import small

SMALL_TRAINING = [f"--set=encoder.{name}" for name in ("samples=24", "held_out=8", "epochs=1", "batch=8")]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny generator in a file, networks of a few weights, an empty cache."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    monkeypatch.setattr(_networks, "load_identity", TinyIdentity)
    monkeypatch.setattr(_networks, "load_perceptual", Averages)
    monkeypatch.setattr(pipeline, "load_generator", lambda *arguments, **named: tiny_generator())
    monkeypatch.setattr(small, "JOINED", 4)
    monkeypatch.setattr(small, "HIDDEN", 8)
    return tmp_path / "tiny.safetensors"


def build(run: Any, file: Path, *more: str) -> Any:
    return run("assets", "build", "small-encoder", "--generator", file, *SMALL_TRAINING, "--json", *more)


def test_built_once_then_kept_until_forced(run: Any, file: Path) -> None:
    first = build(run, file)
    assert first.code == 0
    path = Path(first.json["path"])
    assert first.json["built"]
    assert first.json["training"]["samples"] == 24
    assert first.json["error"] > 0
    written = path.stat().st_mtime_ns
    again = build(run, file)
    assert (again.code, again.json["built"], path.stat().st_mtime_ns) == (0, False, written)
    assert build(run, file, "--force").json["built"]
    assert path.stat().st_mtime_ns > written


def test_dry_run_trains_nothing(run: Any, file: Path) -> None:
    outcome = build(run, file, "--dry-run")
    assert outcome.code == 0
    (path,) = outcome.json["would_write"]
    assert not Path(path).exists()
    build(run, file)
    assert build(run, file, "--dry-run").json["would_write"] == []


def test_unknown_network_is_wrong_use(run: Any, file: Path) -> None:
    outcome = run("assets", "build", "arcface-ir50")
    assert outcome.code == 2
    assert "build small-encoder" in outcome.stderr


def test_list_and_verify_know_it(run: Any, file: Path) -> None:
    assert run("assets", "list", "--json").json["built"] == []
    outcome = run("assets", "verify", built.SMALL_ENCODER)
    assert (outcome.code, built.WAY in outcome.stdout) == (1, True)
    path = Path(build(run, file).json["path"])
    assert [record["state"] for record in run("assets", "list", "--json").json["built"]] == ["ok"]
    assert run("assets", "verify", built.SMALL_ENCODER).code == 0
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert run("assets", "verify", built.SMALL_ENCODER).code == 5
    assert f"{path}: tampered" in run("assets", "list").stdout


def test_doctor_says_whether_it_is_built(run: Any, file: Path) -> None:
    def said() -> str:
        return {check["name"]: check["found"] for check in run("doctor", "--json").json["checks"]}["small-encoder"]

    assert said() == "not built"
    build(run, file)
    assert "of tiny" in said()
