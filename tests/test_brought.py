"""Weights that users bring: added once, verified whenever they are read, named honestly when absent."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from published_networks import alexnet, linear_heads, randomised

from guide_fast import artifacts, brought
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.models.encoders import BROUGHT_ENCODERS, load_encoder
from guide_fast.models.identity import BROUGHT_IDENTITIES, load_identity
from guide_fast.models.perceptual import BROUGHT_PERCEPTUALS, load_perceptual

NAME = "lpips-alex"
DOORS = (
    dict.fromkeys(BROUGHT_IDENTITIES, load_identity)
    | dict.fromkeys(BROUGHT_PERCEPTUALS, load_perceptual)
    | dict.fromkeys(BROUGHT_ENCODERS, load_encoder)
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def files(tmp_path: Path, home: Path) -> list[Path]:
    """AlexNet as torchvision has it, the heads as LPIPS has them."""
    paths = [tmp_path / "alexnet.pth", tmp_path / "alex.pth"]
    torch.save(randomised(alexnet()).state_dict(), paths[0], _use_new_zipfile_serialization=False)
    torch.save(linear_heads((64, 192, 384, 256, 256)), paths[1])
    return paths


def hashes(files: list[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_every_network_of_the_doors_can_be_brought() -> None:
    assert [known.name for known in brought.list_brought()] == list(DOORS)
    for known in brought.list_brought():
        assert known.licence.startswith("brought by you: licence unknown to us")


@pytest.mark.parametrize("name", DOORS)
def test_absent_network_says_what_it_is_with_how_to_add_it(name: str, home: Path) -> None:
    load: Any = DOORS[name]
    with pytest.raises(GuideFastError, match=f"^{name} .* brought by you, .* run `guide-fast assets add {name} PATH"):
        load(name)
    assert not brought.available(name)
    assert brought.verify(name).state == "missing"
    assert not home.exists()


def test_added_network_is_used_by_its_name(files: list[Path]) -> None:
    added = brought.add(NAME, files, sha256=hashes(files))
    assert brought.available(NAME)
    assert added.sources == tuple(zip(files, hashes(files), strict=True)) == tuple(brought.sources(NAME))
    for file in files:
        file.unlink()  # the copy is enough
    network = load_perceptual(NAME)
    assert network.name == NAME
    assert brought.verify(NAME).state == "ok"
    assert "licence unknown to us" in brought.verify(NAME).detail


def test_dry_run_checks_without_keeping(files: list[Path], home: Path) -> None:
    assert brought.add(NAME, files, write=False).path is None
    assert not home.exists()


def test_changed_bytes_are_found(files: list[Path]) -> None:
    served = brought.add(NAME, files).path
    assert served is not None
    content = bytearray(served.read_bytes())
    content[-1] ^= 1
    served.write_bytes(content)
    with pytest.raises(IntegrityError, match="has other bytes than were added; run `guide-fast assets add lpips-alex"):
        load_perceptual(NAME)
    assert brought.verify(NAME).state == "tampered"
    served.write_bytes(content[:1000])
    with pytest.raises(IntegrityError, match="damaged"):
        brought.load(NAME)
    brought.add(NAME, files)
    assert brought.verify(NAME).state == "ok"


def test_what_was_recorded_is_read_without_the_weights(files: list[Path]) -> None:
    served = brought.add(NAME, files).path
    assert served is not None
    recorded = brought.recorded(NAME)
    assert recorded["config"] == brought.load(NAME)[1]
    assert [source["sha256"] for source in recorded["sources"]] == hashes(files)
    content = bytearray(served.read_bytes())
    content[-1] ^= 1
    served.write_bytes(content)
    assert brought.recorded(NAME) == recorded  # `load` is what verifies
    tensors, metadata = artifacts.read_safetensors(served, "brought weights")
    artifacts.write_safetensors(served, tensors, "brought weights", metadata | {"config": 3})
    with pytest.raises(IntegrityError, match="damaged header; run `guide-fast assets add lpips-alex"):
        brought.recorded(NAME)
    served.unlink()
    with pytest.raises(GuideFastError, match="has to be brought by you"):
        brought.recorded(NAME)


def test_changed_settings_are_found(files: list[Path]) -> None:
    served = brought.add(NAME, files).path
    assert served is not None
    tensors, metadata = artifacts.read_safetensors(served, "brought weights")
    for change, said in (({"config": {"name": "lpips-vgg16"}}, "other bytes"), ({"format": 0}, "another version")):
        artifacts.write_safetensors(served, tensors, "brought weights", metadata | change)
        with pytest.raises(IntegrityError, match=said):
            brought.load(NAME)
    artifacts.write_safetensors(served, tensors, "something else", metadata)
    with pytest.raises(IntegrityError, match="something else"):
        brought.load(NAME)


def test_wrong_hash_keeps_what_was_there(files: list[Path]) -> None:
    brought.add(NAME, files)
    good = hashes(files)
    with pytest.raises(IntegrityError, match=r"alex\.pth has sha256 .*, 000000000000 was expected; nothing was kept"):
        brought.add(NAME, files, sha256=[good[0], "0" * 64])
    assert brought.verify(NAME).state == "ok"
    with pytest.raises(UsageError, match="1 hashes were given for 2 files"):
        brought.add(NAME, files, sha256=good[:1])


def test_full_disk_keeps_what_was_there(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    served = brought.add(NAME, files).path
    assert served is not None

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(GuideFastError, match="No space left"):
            brought.add(NAME, files)
    assert brought.verify(NAME).state == "ok"
    assert [file.name for file in served.parent.iterdir()] == [served.name]


def test_weights_that_are_not_finite_are_refused(files: list[Path]) -> None:
    heads = linear_heads((64, 192, 384, 256, 256))
    heads["lin4.model.1.weight"][0, 3] = float("nan")
    torch.save(heads, files[1])
    with pytest.raises(IntegrityError, match=r"heads\.4 holds NaN or infinity"):
        brought.add(NAME, files)


def test_number_of_files_is_checked(files: list[Path]) -> None:
    with pytest.raises(UsageError, match="given 3 files; run `guide-fast assets add lpips-alex PATH PATH`"):
        brought.add(NAME, [*files, files[0]])
    with pytest.raises(UsageError, match="as an earlier file does"):
        brought.add(NAME, [files[0], files[0]])
    with pytest.raises(UsageError, match="linear heads"):
        brought.add(NAME, files[:1])
    with pytest.raises(UsageError, match="no IR network"):
        brought.add("arcface-ir50", files[:1])


def test_unknown_names_list_the_choices() -> None:
    for call in (brought.load, brought.available, brought.verify, lambda name: brought.add(name, [])):
        with pytest.raises(UsageError, match="no network 'arcface' can be brought; choose one of arcface-ir50, "):
            call("arcface")
    with pytest.raises(UsageError, match=r"'arcface'; choose one of dlib-resnet-v1, .*, curricularface-ir101"):
        load_identity("arcface")
    with pytest.raises(UsageError, match="'lpips'; choose one of efficientnet-lite0, lpips-vgg16, "):
        load_perceptual("lpips")


def test_networks_of_evaluations_are_those_that_evaluations_load() -> None:
    from guide_fast import _networks

    evaluating = {known.name: known.metric for known in brought.list_brought() if known.metric}
    assert evaluating == {_networks.CURRICULARFACE: "id_curricularface", _networks.INCEPTION: "fid_inception"}
