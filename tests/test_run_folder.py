"""A run folder says how it was made, and lets only the same settings continue."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from guide_fast import run_folder
from guide_fast.config import Config, LtuConfig, TargetConfig
from guide_fast.errors import GuideFastError, UsageError
from guide_fast.run_folder import environment, open_run, peak_memory_bytes, write_json


def test_run_starts_with_settings_and_environment(tmp_path: Path) -> None:
    open_run(tmp_path / "run", Config(), resume=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == Config().to_dict()
    written = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert written == environment()
    assert {"torch", "python", "platform", "cpus", "torch_threads"} <= written.keys()


def test_package_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise run_folder.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(run_folder.metadata, "version", missing)
    assert environment()["torch"] == "not installed"


def test_same_settings_resume(tmp_path: Path) -> None:
    config = Config(ltu=LtuConfig(lr=0.1 + 0.2))  # a float that has to survive JSON
    open_run(tmp_path, config, resume=False)
    open_run(tmp_path, config, resume=True)


@pytest.mark.parametrize(
    ("other", "name"),
    [(Config(ltu=LtuConfig(steps=61)), "ltu.steps"), (Config(target=TargetConfig(kind="ufo")), "target.kind")],
)
def test_other_settings_do_not_resume(tmp_path: Path, other: Config, name: str) -> None:
    open_run(tmp_path, Config(), resume=False)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=f"started with another {name}"):
        open_run(tmp_path, other, resume=True)
    assert (tmp_path / "config.json").read_bytes() == before
    open_run(tmp_path, other, resume=False)


def test_settings_of_an_older_version_do_not_resume(tmp_path: Path) -> None:
    settings = Config().to_dict()
    del settings["ltu"]["seed"]
    write_json(tmp_path / "config.json", settings)
    with pytest.raises(UsageError, match=r"another ltu\.seed"):
        open_run(tmp_path, Config(), resume=True)


def test_resuming_nothing_starts_anew(tmp_path: Path) -> None:
    open_run(tmp_path / "run", replace(Config()), resume=True)
    assert (tmp_path / "run" / "config.json").is_file()


@pytest.mark.parametrize("content", ["{", "[]", '{"ltu": 3}'])
def test_damaged_settings_are_an_error_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(GuideFastError):
        open_run(tmp_path, Config(), resume=True)


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [0.1]})
    write_json(tmp_path / "b", {"y": [0.1], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"}\n")


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_peak_memory_is_in_bytes_and_holds_what_lives() -> None:
    block = bytes(64 << 20)
    assert len(block) < peak_memory_bytes() < 1 << 40
