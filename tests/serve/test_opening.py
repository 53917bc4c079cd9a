"""What was named decides which session opens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from changed_generators import Chain

import guide_fast
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.export.folder import manifest_text
from guide_fast.serve.opening import open_session
from guide_fast.serve.torch_session import TorchSession


@pytest.fixture
def file(mobile: Chain, tmp_path: Path) -> Path:
    guide_fast.save_generator(mobile.generator, tmp_path / "generator.safetensors")
    return tmp_path / "generator.safetensors"


def test_generator_file_opens_with_deltas_that_can_be_rolled_back(file: Path, mobile: Chain) -> None:
    session = open_session(file, device="cpu", deltas=mobile.deltas)
    assert isinstance(session, TorchSession) and session.version.weights_sha256 == mobile.hashes[2]
    assert session.rollback().after.weights_sha256 == mobile.hashes[1]


def test_threads_are_torchs(file: Path) -> None:
    before = torch.get_num_threads()
    try:
        open_session(file, device="cpu", threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nobody", {}, "unknown generator 'nobody'"),
        ("absent.safetensors", {}, "no generator file"),
        (None, {"label": 1}, "takes no label"),
        (None, {"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_served_is_refused(
    name: str | None, options: dict[str, object], message: str, file: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        open_session(name or file, **options)


def test_damaged_generator_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="is damaged"):
        open_session(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "device = 'cpu' cannot run TensorRT engines; leave it out, or name cuda or cuda:1"),
        ({"device": "cuda:one"}, "device = 'cuda:one' cannot run TensorRT engines"),
        ({"threads": 2}, "threads = 2 means nothing to them; leave it out"),
        ({"label": 1}, "was exported with its labels"),
        ({}, "lacks 'parts'"),
    ],
)
def test_a_folder_of_engines_is_opened_as_one(options: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text(manifest_text({"runtime": "tensorrt_rtx"}))
    with pytest.raises((UsageError, IntegrityError), match=message):
        open_session(tmp_path, **options)
