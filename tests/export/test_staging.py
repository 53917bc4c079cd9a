"""A staged folder appears whole or not at all, and never replaces what is no export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export.folder import MANIFEST
from guide_fast.export.staging import check_target, staged


def write(out: Path, text: str, *, force: bool = False) -> None:
    with staged(out, force=force) as work:
        (work / MANIFEST).write_text(text)


def test_folder_appears_under_its_name_alone(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", "first")
    assert (tmp_path / "a" / "b" / MANIFEST).read_text() == "first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_nothing_is_left_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "b", force=False) as work:
        (work / MANIFEST).write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_with_force_only(tmp_path: Path) -> None:
    out = tmp_path / "b"
    write(out, "first")
    (out / "old.onnx").touch()
    with pytest.raises(UsageError, match="--force"):
        write(out, "second")
    assert (out / MANIFEST).read_text() == "first"
    write(out, "second", force=True)
    assert [path.name for path in out.iterdir()] == [MANIFEST]
    assert (out / MANIFEST).read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_earlier_export_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    write(tmp_path / "b", "first")
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "b", force=True):
        _ = 1 / 0
    assert (tmp_path / "b" / MANIFEST).read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_earlier_export_comes_back_when_the_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "b", "first")
    replace, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(GuideFastError, match="No space left"):
        write(tmp_path / "b", "second", force=True)
    assert (tmp_path / "b" / MANIFEST).read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UsageError, match="other files"):
        check_target(tmp_path, force=True)
    with pytest.raises(UsageError, match="is a file"):
        check_target(tmp_path / "photo.png", force=True)


def test_an_empty_folder_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", "first")
    assert (tmp_path / "b" / MANIFEST).is_file()


def test_a_refusing_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(GuideFastError, match=r"cannot write .*Permission denied.*--out"):
        write(tmp_path / "b", "first")
