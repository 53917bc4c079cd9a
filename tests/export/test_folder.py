"""An exported folder vouches for its bytes; deltas lead from one version to the next, without PyTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.export.folder import MANIFEST, WEIGHTS, ExportedGenerator, StoredDelta, manifest_text, read_manifest

Exported = Callable[..., tuple[Any, ExportedGenerator]]
NAME = "mobilestylegan"


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported(NAME)[1].folder, tmp_path / "copy"))


def test_loading_gives_weights_parts_version(exported: Exported) -> None:
    generator, engine = exported(NAME)
    assert engine.weights_sha256 == weights_sha256(generator)
    assert engine.lineage == ()
    parameters = dict(generator.named_parameters())
    for name, value in engine.weights().items():
        if name in parameters:
            assert value.tobytes() == parameters[name].contiguous().numpy().tobytes()
    assert parameters.keys() <= engine.weights().keys()
    assert [part.name for part in engine.parts] == ["mapping", "synthesis"]
    assert [(port.name, port.shape, port.dtype) for port in engine.parts[0].inputs] == [
        ("z", ("batch", 16), "float32"),
        ("psi", ("batch",), "float32"),
    ]
    assert engine.parts[1].outputs[0].shape == ("batch", 3, 32, 32)


def test_a_delta_is_read_alike_with_torch_or_without(exported: Exported, delta_file: Callable[..., Path]) -> None:
    path = delta_file(exported(NAME)[0], NAME)
    ours, theirs = StoredDelta.load(path), Delta.load(path)
    assert (ours.base_sha256, ours.result_sha256, ours.sha256) == (
        theirs.base_sha256,
        theirs.result_sha256,
        theirs.sha256,
    )
    assert all(np.array_equal(ours.tensors[name], value.numpy()) for name, value in theirs.tensors.items())
    assert StoredDelta.load(path.parent).sha256 == ours.sha256  # a run folder stands for the delta in it


def test_a_delta_leads_on_and_back(exported: Exported, changed: Any, delta_file: Callable[..., Path]) -> None:
    generator, engine = exported(NAME)
    other, delta = changed(generator, NAME)
    path = delta_file(generator, NAME)
    later, change = engine.after(path)
    assert (later.weights_sha256, later.lineage) == (weights_sha256(other), (delta.sha256,))
    assert change.keys() == engine.changed_by(path).keys()
    with pytest.raises(UsageError, match="applied to weights with sha256"):
        later.changed_by(path)
    earlier, back = later.after(path, undo=True)
    assert (earlier.weights_sha256, earlier.lineage) == (engine.weights_sha256, ())
    assert all(np.array_equal(earlier.tensors[name], value) for name, value in engine.tensors.items())
    assert back.keys() == change.keys()
    with pytest.raises(UsageError, match="rolled back from"):
        engine.changed_by(path, undo=True)


def test_a_delta_that_lies_is_refused(exported: Exported, delta_file: Callable[..., Path]) -> None:
    generator, engine = exported(NAME)
    good = StoredDelta.load(delta_file(generator, NAME))
    name, bits = next(iter(good.tensors.items()))
    damaged = {**good.tensors, name: bits ^ 1}
    for tensors, said in ((damaged, "promised"), ({"nothing.weight": bits}, "does not have in that form")):
        bad = StoredDelta(tensors, good.base_sha256, good.result_sha256, good.generator, good.sha256)
        with pytest.raises(IntegrityError, match=said):
            engine.changed_by(bad)


def test_a_file_without_hashes_is_no_delta(tmp_path: Path, delta_file: Any, exported: Exported) -> None:
    path = delta_file(exported(NAME)[0], NAME)
    tensors = load_file(path)
    save_file(tensors, path, {"guide_fast": json.dumps({"kind": "delta", "content": {"generator": "tiny"}})})
    with pytest.raises(IntegrityError, match="lacks the hashes"):
        StoredDelta.load(path)
    with pytest.raises(UsageError, match="does not exist"):
        StoredDelta.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["mapping.onnx", "synthesis.onnx", WEIGHTS])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name} is damaged"):
        ExportedGenerator.load(folder)


@pytest.mark.parametrize("name", ["synthesis.onnx", WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name} is damaged: it is not there"):
        ExportedGenerator.load(folder)


def test_a_changed_manifest_is_found(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"fp32"', '"fp16"'))
    with pytest.raises(IntegrityError, match="changed after it was written"):
        ExportedGenerator.load(folder)
    (folder / MANIFEST).write_text(text[:100])
    with pytest.raises(IntegrityError, match="no manifest"):
        ExportedGenerator.load(folder)


def test_a_missing_weight_is_named(folder: Path) -> None:
    tensors, metadata = load_file(folder / WEIGHTS), {"guide_fast": '{"kind": "exported weights", "content": {}}'}
    del tensors["to_img.weight"]
    save_file(tensors, folder / WEIGHTS, metadata)
    with pytest.raises(IntegrityError, match="its weights have sha256"):
        ExportedGenerator.load(folder)
    manifest = read_manifest(folder)  # whoever makes the manifest fit them, too, is still found out
    from guide_fast.export.folder import weights_sha256 as hashed

    manifest["weights_sha256"] = hashed(tensors)
    (folder / MANIFEST).write_text(manifest_text(manifest))
    with pytest.raises(IntegrityError, match=r"lacks 'to_img.weight'"):
        ExportedGenerator.load(folder)


def test_a_part_outside_the_folder_is_refused(folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest["parts"][0]["file"] = "../mapping.onnx"
    (folder / MANIFEST).write_text(manifest_text(manifest))
    shutil.copy(folder / "mapping.onnx", folder.parent / "mapping.onnx")
    with pytest.raises(IntegrityError, match="outside the folder"):
        ExportedGenerator.load(folder)


def test_another_folder_is_a_usage_error(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="guide-fast export"):
        ExportedGenerator.load(tmp_path)
    manifest = read_manifest(folder)
    (folder / MANIFEST).write_text(manifest_text(manifest | {"format": 99}))
    with pytest.raises(UsageError, match="format 99"):
        ExportedGenerator.load(folder)


def test_a_process_without_torch_applies_a_delta(exported: Exported, delta_file: Callable[..., Path]) -> None:
    generator, engine = exported(NAME)
    code = f"""
import sys
sys.modules["torch"] = None  # importing it raises
from guide_fast.export import ExportedGenerator
change = ExportedGenerator.load({str(engine.folder)!r}).changed_by({str(delta_file(generator, NAME))!r})
print(len(change))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(engine.manifest["refit"])
