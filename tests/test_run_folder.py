"""A run folder says how it was made, and keeps what an earlier run left apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stopping import ctrl_c as ctrl_c  # a fixture

from guide_fast import run_folder
from guide_fast.config import Config
from guide_fast.errors import GuideFastError
from guide_fast.run_folder import (
    FILES,
    INVERSION,
    LATENT,
    SPENT,
    STATE,
    STATES,
    environment,
    give_up_run,
    open_run,
    peak_memory_bytes,
    stopped,
    write_json,
)


def test_run_starts_with_settings_and_environment(tmp_path: Path) -> None:
    open_run(tmp_path / "run", Config(), LATENT, lambda file: write_json(file, 1), resume=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == Config().to_dict()
    written = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert written == environment()
    assert {"torch", "python", "platform", "cpus", "torch_threads"} <= written.keys()


def test_package_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise run_folder.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(run_folder.metadata, "version", missing)
    assert environment()["torch"] == "not installed"


@pytest.mark.parametrize("resume", [True, False])
def test_opening_removes_what_is_not_of_this_run(tmp_path: Path, resume: bool) -> None:
    for name in (*FILES, *STATES, "notes.txt"):
        (tmp_path / name).write_text("earlier")
    open_run(tmp_path, Config(), LATENT, lambda file: file.write_text("new"), resume=resume)
    kept = {LATENT, "config.json", "environment.json", "notes.txt"} | ({STATE, SPENT} if resume else set())
    assert {file.name for file in tmp_path.iterdir()} == kept
    assert (tmp_path / LATENT).read_text() == "new"


def test_nothing_is_removed_when_the_disk_refuses(tmp_path: Path) -> None:
    for name in (*FILES, *STATES):
        (tmp_path / name).write_text("earlier")

    def refuse(file: Path) -> None:
        raise GuideFastError("no space")

    with pytest.raises(GuideFastError):
        open_run(tmp_path, Config(), LATENT, refuse, resume=False)
    assert all((tmp_path / name).read_text() == "earlier" for name in (*FILES, *STATES))


def test_ctrl_c_waits_until_the_folder_is_opened(tmp_path: Path, ctrl_c: Callable[[], None]) -> None:

    def save(file: Path) -> None:
        file.touch()
        ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        open_run(tmp_path, Config(), LATENT, save, resume=False)
    assert {file.name for file in tmp_path.iterdir()} == {LATENT, "config.json", "environment.json"}


def test_run_given_up_leaves_the_latent(tmp_path: Path) -> None:
    open_run(tmp_path, Config(), LATENT, lambda file: file.touch(), resume=False)
    (tmp_path / STATE).touch()
    assert stopped(tmp_path)
    give_up_run(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [LATENT]
    assert not stopped(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), False),
        ((LATENT,), False),  # of `guide-fast invert`
        ((STATE, "config.json"), False),  # whose nobody knows
        ((INVERSION,), True),
        ((LATENT, "config.json"), True),
        ((LATENT, "config.json", STATE), True),
        ((LATENT, "config.json", STATE, "delta.safetensors"), True),  # stopped while the results were written
        (FILES, False),
    ],
)
def test_stopped_run_is_told_from_a_finished_one(tmp_path: Path, names: tuple[str, ...], said: bool) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert stopped(tmp_path) is said


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
