"""Generators with deltas as files, sound ones with those that no session may take."""

from __future__ import annotations

from pathlib import Path

import pytest
from changed_generators import FAMILIES, Chain, chain
from tiny import tiny_generator

from guide_fast.artifacts import Delta


@pytest.fixture
def mobile(tmp_path: Path) -> Chain:
    return chain(tiny_generator(), tmp_path)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    """Every family in turn."""
    return chain(FAMILIES[request.param](), tmp_path)


@pytest.fixture
def damaged(mobile: Chain, tmp_path: Path) -> dict[str, Path]:
    """Deltas that no session may take, by what is wrong with them."""
    good = Delta.load(mobile.deltas[0])
    name = sorted(good.tensors)[0]
    made = {
        "flipped bit": Delta(**{**vars(good), "tensors": {**good.tensors, name: good.tensors[name] ^ 1}}),
        "unknown weight": Delta(**{**vars(good), "tensors": {**good.tensors, "blocks.9.bias": good.tensors[name].clone()}}),
        "missing weight": Delta(**{**vars(good), "tensors": {n: t for n, t in good.tensors.items() if n != name}}),
        "other shape": Delta(**{**vars(good), "tensors": {**good.tensors, name: good.tensors[name].flatten()[:-1]}}),
    }
    files = {}
    for what, delta in made.items():
        files[what] = tmp_path / f"{what.replace(' ', '-')}.safetensors"
        delta.save(files[what])
    files["truncated file"] = tmp_path / "truncated.safetensors"
    files["truncated file"].write_bytes(mobile.deltas[0].read_bytes()[:-10])
    files["no delta"] = tmp_path / "text.safetensors"
    files["no delta"].write_text("good day")
    files["no file"] = tmp_path / "absent.safetensors"
    files["other base"] = mobile.deltas[1]
    return files
