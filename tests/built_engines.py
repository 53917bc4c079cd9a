"""A small generator with deltas, exported to ONNX, built into engines: made once for all tests of a module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from changed_generators import Chain, chain
from tiny import tiny_generator

from guide_fast.export import folder
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.tensorrt_folder import export_tensorrt
from guide_fast.export.tensorrt_plan import PlanSettings
from guide_fast.export.to_onnx import export_onnx


@dataclass(frozen=True)
class Made:
    """A generator with deltas, its ONNX export, its engines with weights as inputs."""

    chain: Chain
    onnx: Path
    engines: Path

    def of_kind(self, weights: str, out: Path, **more: Any) -> Path:
        """The engines, whose manifest says that they hold their weights in another way."""
        exported = ExportedGenerator.load(self.engines)
        out.mkdir()
        for file in self.engines.iterdir():
            (out / file.name).write_bytes(file.read_bytes())
        settings = {**exported.manifest["tensorrt"], "weights": weights, **more}
        (out / folder.MANIFEST).write_text(folder.manifest_text({**exported.manifest, "tensorrt": settings}))
        return out


@pytest.fixture(scope="module")
def made(tensorrt_rtx: Tensorrt, tmp_path_factory: pytest.TempPathFactory) -> Made:
    where, generator = tmp_path_factory.mktemp("tensorrt"), tiny_generator()
    deltas = chain(generator, where)
    export_onnx(generator, where / "onnx")
    settings = PlanSettings("inputs", max_batch=4)
    engines = where / "engines"
    export_tensorrt(where / "onnx", engines, tensorrt=tensorrt_rtx, settings=settings, capabilities=[86, 89])
    return Made(deltas, where / "onnx", engines)
