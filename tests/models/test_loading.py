"""Generators come back from a file with their bytes, their lineage, without their heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import ARCHITECTURE, tiny_generator

from guide_fast import assets
from guide_fast.artifacts import Latent, weights_sha256, write_safetensors
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models import loading
from guide_fast.models.low_resolution import attach_head


def test_saved_generator_comes_back_with_bytes_and_lineage(tmp_path: Path) -> None:
    generator = tiny_generator()
    generator.lineage = ("a" * 64, "b" * 64)
    loading.save(generator, tmp_path / "g.safetensors")
    loaded = loading.load(str(tmp_path / "g.safetensors"))
    before, after = generator.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].view(torch.int32), after[name].view(torch.int32)) for name in before)
    assert loaded.lineage == generator.lineage
    assert loaded.name == "tiny"
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_saving_a_loaded_generator_gives_the_same_file(tmp_path: Path) -> None:
    loading.save(tiny_generator(), tmp_path / "a")
    loading.save(loading.load(str(tmp_path / "a")), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_heads_stay_out_of_file_and_hash(tmp_path: Path) -> None:
    generator = tiny_generator()
    loading.save(generator, tmp_path / "without")
    before = weights_sha256(generator)
    attach_head(generator, 16)
    loading.save(generator, tmp_path / "with")
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()
    assert weights_sha256(generator) == before


def test_pinned_name_is_loaded_from_the_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        asked.append(name)
        return tiny_generator().state_dict(), ARCHITECTURE

    monkeypatch.setattr(assets, "load", load)
    generator = loading.load(loading.GENERATORS[0])
    assert asked == [loading.GENERATORS[0]]
    assert generator.lineage == ()


def test_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"unknown generator 'nobody'; choose one of {loading.GENERATORS[0]}"):
        loading.load("nobody")
    with pytest.raises(UsageError, match="is a folder"):
        loading.load(str(tmp_path))


def test_file_that_is_no_generator_is_refused(tmp_path: Path) -> None:
    Latent(torch.zeros(2, 3), "tiny", "seed:7").save(tmp_path / "latent.safetensors")
    with pytest.raises(UsageError, match="is latent, not a generator"):
        loading.load(str(tmp_path / "latent.safetensors"))


@pytest.mark.parametrize("damage", ["missing", "shape", "extra"])
def test_tensors_that_do_not_fit_the_architecture_are_an_integrity_error(tmp_path: Path, damage: str) -> None:
    tensors = tiny_generator().state_dict()
    if damage == "missing":
        del tensors["conv1.weight"]
    else:
        tensors["conv1.weight" if damage == "shape" else "conv9.weight"] = torch.zeros(2)
    write_safetensors(tmp_path / "g", tensors, "generator", {"config": ARCHITECTURE, "lineage": []})
    with pytest.raises(IntegrityError, match="do not fit tiny"):
        loading.load(str(tmp_path / "g"))


@pytest.mark.parametrize("name", ["gone.safetensors", "folder/gone"])
def test_absent_file_is_called_a_file(name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no generator file {name}"):
        loading.load(name)
