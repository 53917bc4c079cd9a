"""The form of tensor files is one, with PyTorch or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from guide_fast import tensor_files
from guide_fast.artifacts import tensors_sha256, write_safetensors
from guide_fast.errors import IntegrityError, UsageError

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5), "h": torch.ones(3, dtype=torch.float16)}


def test_numpy_reads_what_torch_wrote(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", TENSORS, "thing", {"k": [1, 2]})
    arrays, metadata = tensor_files.read(tmp_path / "x.safetensors", "thing", "np")
    assert metadata == {"k": [1, 2]}
    assert {name: value.tolist() for name, value in arrays.items()} == {n: v.tolist() for n, v in TENSORS.items()}
    assert tensor_files.read(tmp_path / "x.safetensors", "thing", "np", tensors=False) == ({}, metadata)


def test_digest_is_that_of_the_artifacts() -> None:
    arrays = {name: TENSORS[name].numpy() for name in sorted(TENSORS)}
    entries = ((n, f"torch.{v.dtype.name}", v.shape, np.ascontiguousarray(v).tobytes()) for n, v in arrays.items())
    assert tensor_files.digest(entries) == tensors_sha256(TENSORS)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(UsageError, match="does not exist"):
        tensor_files.read(path, "thing", "np")
    with pytest.raises(UsageError, match="is a folder"):
        tensor_files.read(tmp_path, "thing", "np")
    write_safetensors(path, TENSORS, "thing", {})
    with pytest.raises(UsageError, match="is thing, not a delta"):
        tensor_files.read(path, "delta", "np")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match="damaged"):
        tensor_files.read(path, "thing", "np")
