"""Artifacts survive a file bit for bit; damaged or foreign files and full disks end in a sentence."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import seeded, tiny_generator

from guide_fast.artifacts import (
    Delta,
    Face,
    Latent,
    checked_latent,
    read_metadata,
    read_safetensors,
    weights_sha256,
    write_bytes,
    write_safetensors,
)
from guide_fast.errors import GuideFastError, IntegrityError, UsageError

MAKE_DELTA = """
import sys, torch
from pathlib import Path
from guide_fast.artifacts import Delta
names = ["b", "a", "c"]
Delta({n: torch.arange(i + 2, dtype=torch.int32) for i, n in enumerate(names)}, "0" * 64, "1" * 64, "tiny",
      config={"ltu": {"steps": 3, "lr": 0.1}}, seeds={"ltu": 0, "bank": 11}, metrics={"retained": 0.5}
).save(Path(sys.argv[1]))
"""


def some_delta(**fields: Any) -> Delta:
    values: dict[str, Any] = {
        "tensors": {"b": torch.arange(6, dtype=torch.int32).reshape(2, 3), "a": torch.ones(1, dtype=torch.int16)},
        "base_sha256": "0" * 64,
        "result_sha256": "1" * 64,
        "generator": "tiny",
        "parent_sha256": "2" * 64,
        "config": {"ltu": {"steps": 3}},
        "seeds": {"ltu": 0},
        "metrics": {"retained": 0.5, "steps": 3},
    }
    return Delta(**(values | fields))


@pytest.mark.parametrize("details", [True, False], ids=["with details", "image only"])
def test_face_comes_back_as_saved(tmp_path: Path, details: bool) -> None:
    known = {"box": (1.0, 2.5, 3.0, 4.0), "landmarks": ((1.0, 2.0),) * 5, "score": 0.99} if details else {}
    face = Face(seeded(3, 5, 5, seed=0), "f" * 64, **known)
    face.save(tmp_path / "face.safetensors")
    loaded = Face.load(tmp_path / "face.safetensors")
    assert torch.equal(loaded.image, face.image)
    assert vars(loaded) | {"image": None} == vars(face) | {"image": None}


def test_latent_comes_back_as_saved(tmp_path: Path) -> None:
    latent = Latent(seeded(3, 4, seed=0), "tiny", "seed:7", similarity=0.8, notes={"curve": [1.0, 0.5]})
    latent.save(tmp_path / "latent.safetensors")
    loaded = Latent.load(tmp_path / "latent.safetensors")
    assert torch.equal(loaded.w, latent.w)
    assert vars(loaded) | {"w": None} == vars(latent) | {"w": None}


def test_half_precision_latent_becomes_fp32() -> None:
    assert checked_latent(torch.ones(2, 3, dtype=torch.float16), "x").dtype == torch.float32


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_latent_with_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, value: float) -> None:
    w = torch.zeros(3, 4)
    w[2, 1] = value
    Latent(w, "tiny", "seed:7").save(tmp_path / "latent.safetensors")
    with pytest.raises(UsageError, match=rf"holds {value} at \[2, 1\]"):
        Latent.load(tmp_path / "latent.safetensors")


def test_latent_file_without_w_is_refused(tmp_path: Path) -> None:
    content = {"generator": "tiny", "origin": "seed:7", "similarity": None, "notes": {}}
    write_safetensors(tmp_path / "latent.safetensors", {"v": torch.zeros(2)}, "latent", content)
    with pytest.raises(UsageError, match="no tensor called 'w'"):
        Latent.load(tmp_path / "latent.safetensors")


def test_delta_comes_back_as_saved(tmp_path: Path) -> None:
    delta = some_delta()
    delta.save(tmp_path / "delta.safetensors")
    loaded = Delta.load(tmp_path / "delta.safetensors")
    assert {name: tensor.dtype for name, tensor in loaded.tensors.items()} == {"a": torch.int16, "b": torch.int32}
    assert all(torch.equal(loaded.tensors[name], delta.tensors[name]) for name in delta.tensors)
    assert vars(loaded) | {"tensors": None} == vars(delta) | {"tensors": None}
    assert loaded.sha256 == delta.sha256
    assert loaded.num_parameters == 7


def test_hash_of_a_delta_is_that_of_its_file(tmp_path: Path) -> None:
    import hashlib

    some_delta().save(tmp_path / "delta.safetensors")
    assert hashlib.sha256((tmp_path / "delta.safetensors").read_bytes()).hexdigest() == some_delta().sha256


@pytest.mark.parametrize("field", ["base_sha256", "parent_sha256", "seeds", "metrics", "config"])
def test_deltas_that_differ_have_different_hashes(field: str) -> None:
    other = {"x": 1} if field in ("seeds", "metrics", "config") else "9" * 64
    assert some_delta(**{field: other}).sha256 != some_delta().sha256


def test_twenty_saves_of_equal_deltas_give_equal_bytes(tmp_path: Path) -> None:
    for i in range(20):
        delta = some_delta()
        if i % 2:  # the order in which names were put in is no part of the value
            delta = some_delta(
                tensors=dict(reversed(delta.tensors.items())), metrics=dict(reversed(delta.metrics.items()))
            )
        delta.save(tmp_path / f"{i}.safetensors")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_two_processes_give_equal_bytes(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        command = [sys.executable, "-c", MAKE_DELTA, str(tmp_path / seed)]
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_missing_file_and_folder_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a delta file"):
        Delta.load(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="is a folder; give a latent file"):
        Latent.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 60, -1], ids=["empty", "half a length", "half a header", "last byte gone"])
def test_truncated_file_is_an_integrity_error(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "delta.safetensors"
    some_delta().save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match="damaged or no safetensors file"):
        Delta.load(file)


def test_file_of_another_format_is_an_integrity_error(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(IntegrityError, match=r"photo\.png is damaged or no safetensors file"):
        Latent.load(tmp_path / "photo.png")


def test_metadata_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_safetensors(path, {"w": torch.zeros(2)}, "some kind", {"name": "a", "numbers": [1, 2]})
    assert (
        read_metadata(path, "some kind") == read_safetensors(path, "some kind")[1] == {"name": "a", "numbers": [1, 2]}
    )
    with pytest.raises(UsageError, match="is some kind, not a latent"):
        read_metadata(path, "latent")


def test_file_of_another_kind_or_program_is_refused_by_its_kind(tmp_path: Path) -> None:
    some_delta().save(tmp_path / "delta.safetensors")
    with pytest.raises(UsageError, match=r"is delta, not a latent"):
        Latent.load(tmp_path / "delta.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UsageError, match="another program's file, not a latent"):
        Latent.load(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("header", ["[1]", "{", '{"kind": "delta"}', '{"kind": "delta", "content": {}}'])
def test_header_without_the_fields_of_its_kind_is_an_error_of_ours(tmp_path: Path, header: str) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "odd.safetensors", {"guide_fast": header})
    with pytest.raises(GuideFastError):
        Delta.load(tmp_path / "odd.safetensors")


def test_unreadable_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    some_delta().save(tmp_path / "delta.safetensors")
    monkeypatch.setattr("guide_fast.tensor_files.safe_open", refuse)
    with pytest.raises(UsageError, match="permission denied"):
        Delta.load(tmp_path / "delta.safetensors")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_bytes(tmp_path / "file", b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(GuideFastError, match=r"cannot write .*file: No space left on device; free some space"):
        write_bytes(tmp_path / "file", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_disk_that_fills_during_the_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullFile:
        def __init__(self, handle: int) -> None:
            self.handle = handle

        def __enter__(self) -> FullFile:
            return self

        def __exit__(self, *raised: object) -> None:
            os.close(self.handle)

        def write(self, data: bytes) -> None:
            os.write(self.handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda handle, mode: FullFile(handle))
    with pytest.raises(GuideFastError, match="No space left"):
        some_delta().save(tmp_path / "delta.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_folder_in_the_way_of_a_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GuideFastError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below", b"")


def test_written_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_views_of_one_storage_are_written_as_they_look(tmp_path: Path) -> None:
    whole = seeded(4, 6, seed=0)
    write_safetensors(tmp_path / "x", {"t": whole.T, "row": whole[1:3]}, "latent", {})
    tensors, _ = read_safetensors(tmp_path / "x", "latent")
    assert torch.equal(tensors["t"], whole.T)
    assert torch.equal(tensors["row"], whole[1:3])


def test_one_bit_changes_the_hash_of_weights() -> None:
    generator = tiny_generator()
    before = weights_sha256(generator)
    assert before == weights_sha256(tiny_generator())
    for parameter in generator.parameters():
        parameter.data.view(torch.int32).flatten()[-1:].bitwise_xor_(1)
        assert weights_sha256(generator) != before
        parameter.data.view(torch.int32).flatten()[-1:].bitwise_xor_(1)
    assert weights_sha256(generator) == before


@pytest.mark.parametrize("buffer", ["w_mean", "conv1.noise", "blocks.1.conv2.noise"])
def test_buffers_count_among_the_weights(buffer: str) -> None:
    generator = tiny_generator()
    before = weights_sha256(generator)
    generator.get_buffer(buffer).flatten()[-1:].view(torch.int32).bitwise_xor_(1)
    assert weights_sha256(generator) != before


def test_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"after")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_memory_layout_does_not_change_the_hash_of_weights() -> None:
    generator = tiny_generator()
    before = weights_sha256(generator)
    generator.conv1.weight.data = generator.conv1.weight.data.contiguous(memory_format=torch.channels_last)
    assert weights_sha256(generator) == before
