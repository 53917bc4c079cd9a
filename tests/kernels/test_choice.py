"""_choice: measured once per device with shape, kept in a file that may be damaged."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

from guide_fast.kernels import _choice

CPU = torch.device("cpu")
NAME = f"cpu | op | 8x8 | {_choice.versions()}"


@pytest.fixture(autouse=True)
def nothing_in_memory() -> Iterator[None]:
    _choice.forget()
    yield
    _choice.forget()


class FakeTimer:
    """Says the milliseconds that a call returns."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, call) -> float:
        self.calls += 1
        return call()


def fails() -> float:
    raise RuntimeError("out of shared memory")


def pick(path: Path, timer: FakeTimer, key: str = "8x8", **times) -> str:
    candidates = {name: (time if callable(time) else lambda time=time: time) for name, time in times.items()}
    return _choice.choose("op", key, candidates, CPU, timer=timer, path=path)


def test_fastest_is_chosen_then_remembered(tmp_path: Path) -> None:
    timer, path = FakeTimer(), tmp_path / "deep" / "kernels.json"
    assert pick(path, timer, triton=2.0, dense=1.0) == "dense"
    assert pick(path, timer, triton=0.1, dense=1.0) == "dense" and timer.calls == 2
    _choice.forget()  # another process
    assert pick(path, timer, triton=0.1, dense=1.0) == "dense" and timer.calls == 2
    assert pick(path, timer, key="4x4", triton=0.1, dense=1.0) == "triton" and timer.calls == 4
    assert _choice.table(path)[NAME] == {"impl": "dense", "ms": {"triton": 2.0, "dense": 1.0}}
    assert [file.name for file in path.parent.iterdir()] == ["kernels.json"]


def test_only_candidate_is_not_measured(tmp_path: Path) -> None:
    timer = FakeTimer()
    assert pick(tmp_path / "k.json", timer, triton=1.0) == "triton" and timer.calls == 0


def test_candidate_that_fails_loses(tmp_path: Path) -> None:
    assert pick(tmp_path / "k.json", FakeTimer(), triton=fails, dense=9.0) == "dense"
    assert _choice.table(tmp_path / "k.json")[NAME]["ms"] == {"triton": None, "dense": 9.0}


def test_all_failing_raises_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shared memory"):
        pick(tmp_path / "k.json", FakeTimer(), triton=fails, dense=fails)


def test_new_candidate_is_measured_anew(tmp_path: Path) -> None:
    timer = FakeTimer()
    assert pick(tmp_path / "k.json", timer, triton=2.0, dense=1.0) == "dense"
    assert pick(tmp_path / "k.json", timer, triton=2.0, dense=1.0, cuda=0.5) == "cuda"
    assert pick(tmp_path / "k.json", timer, triton=2.0, dense=1.0) == "dense"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 0, "choices": {}}', '{"version": 2, "choices": {"a": 3}}', "\udcff"]
)
def test_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert pick(path, FakeTimer(), triton=2.0, dense=1.0) == "dense"
    assert list(json.loads(path.read_text())["choices"]) == [NAME]


def test_what_another_process_stored_is_kept(tmp_path: Path) -> None:
    path, timer = tmp_path / "k.json", FakeTimer()
    pick(path, timer, key="a", triton=2.0, dense=1.0)
    stored = path.read_text()
    _choice.forget()
    path.unlink()
    pick(path, timer, key="b", triton=2.0, dense=1.0)
    path.write_text(stored)  # the other process replaced the file
    pick(path, timer, key="c", triton=2.0, dense=1.0)
    assert list(json.loads(path.read_text())["choices"]) == [NAME.replace("8x8", key) for key in "ac"]


def test_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert pick(tmp_path / "file" / "k.json", FakeTimer(), triton=2.0, dense=1.0) == "dense"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["full", "stopped"])
def test_failed_write_leaves_no_file(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(_choice.os, "replace", fail)
    with contextlib.suppress(KeyboardInterrupt):
        assert pick(tmp_path / "k.json", FakeTimer(), triton=2.0, dense=1.0) == "dense"
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = tempfile.NamedTemporaryFile

    def full(*arguments: object, **options: object) -> object:
        file = open_file(*arguments, **options)

        def write(_: str) -> None:
            raise OSError("disk full")

        file.write = write
        return file

    monkeypatch.setattr(_choice.tempfile, "NamedTemporaryFile", full)
    assert pick(tmp_path / "k.json", FakeTimer(), triton=2.0, dense=1.0) == "dense"
    assert not list(tmp_path.iterdir())


def test_another_version_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"torch {metadata.version('torch')}" in _choice.versions()
    timer, path = FakeTimer(), tmp_path / "k.json"
    pick(path, timer, triton=2.0, dense=1.0)
    monkeypatch.setattr(_choice, "versions", lambda: "torch 9.9")
    assert pick(path, timer, triton=0.5, dense=1.0) == "triton" and timer.calls == 4
    assert len(_choice.table(path)) == 2


def test_place_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path))
    assert _choice.default_path() == tmp_path / "kernels.json"
    monkeypatch.delenv("GUIDE_FAST_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert _choice.default_path() == tmp_path / "guide-fast" / "kernels.json"


@pytest.mark.gpu
def test_events_time_a_call(tmp_path: Path) -> None:
    x = torch.randn(2048, 2048, device="cuda")
    calls = {"much": lambda: [x @ x for _ in range(8)], "little": lambda: x @ x}
    assert _choice.choose("op", "k", calls, x.device, path=tmp_path / "k.json") == "little"
