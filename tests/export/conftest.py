"""Tiny generators of every family, each exported once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_families import MAKERS

from guide_fast.artifacts import Delta
from guide_fast.deltas import apply_delta, make_delta
from guide_fast.export.folder import ExportedGenerator
from guide_fast.models.generator import Generator


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Generator, ExportedGenerator]]:
    """`exported("eg3d", "fp16")` -> the generator with what its export made."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    made: dict[tuple[str, str], tuple[Generator, ExportedGenerator]] = {}

    def export(name: str, precision: str = "fp32") -> tuple[Generator, ExportedGenerator]:
        from guide_fast.export.to_onnx import export_onnx

        if (name, precision) not in made:
            generator = MAKERS[name]()
            out = tmp_path_factory.mktemp("export") / f"{name}-{precision}"
            made[name, precision] = generator, export_onnx(generator, out, precision=precision, licence="of the test")
        return made[name, precision]

    return export


def another(generator: Generator, name: str) -> Generator:
    """The generator `name` with every parameter moved."""
    changed = MAKERS[name]()
    with torch.no_grad():
        for i, parameter in enumerate(p for _, p in changed.named_parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(0.01 * noise)
    changed.lineage = generator.lineage
    return changed


@pytest.fixture(scope="session")
def changed() -> Callable[[Generator, str], tuple[Generator, Delta]]:
    """`changed(generator, "eg3d")` -> another generator with the delta that leads to it, in its lineage."""

    def change(generator: Generator, name: str) -> tuple[Generator, Delta]:
        other = another(generator, name)
        delta = make_delta(generator, other, config={}, seeds={}, metrics={})
        return apply_delta(MAKERS[name](), delta), delta

    return change


@pytest.fixture
def delta_file(tmp_path: Path, changed: Callable[[Generator, str], tuple[Generator, Delta]]) -> Callable[..., Path]:
    """`delta_file(generator, "eg3d")` -> the file of the delta that `changed` makes."""

    def write(generator: Generator, name: str) -> Path:
        changed(generator, name)[1].save(tmp_path / "delta.safetensors")
        return tmp_path / "delta.safetensors"

    return write
