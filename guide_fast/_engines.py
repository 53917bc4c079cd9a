"""TensorRT engines from a generator, by way of an ONNX export that is thrown away, or from one in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guide_fast import _export
from guide_fast.errors import UsageError
from guide_fast.export.folder import MANIFEST, ExportedGenerator
from guide_fast.export.staging import check_target
from guide_fast.export.tensorrt_flavour import load
from guide_fast.export.tensorrt_folder import export_tensorrt
from guide_fast.export.tensorrt_plan import PlanSettings, check
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent


def is_onnx_export(source: str | Path) -> bool:
    """Whether `source` is a folder that `guide-fast export` wrote."""
    return (Path(source) / MANIFEST).is_file()


def build_engines(
    source: str | Path,  # a folder with an ONNX export, or what `generator` loads
    out: Path,
    *,
    flavour: str,
    settings: PlanSettings,
    capabilities: Sequence[int],
    generator: Callable[[], Generator],
    precision: str = "fp32",
    noise: str = "const",
    force: bool = False,
    progress: Progress = silent,
) -> ExportedGenerator:
    """Engines in the folder `out`; checks all that can be checked before it exports anything.

    Raises as `export` and `export_tensorrt`.
    """
    tensorrt = load(flavour)
    check(tensorrt, settings, capabilities)
    check_target(out, force=force)
    asked: dict[str, Any] = {"tensorrt": tensorrt, "settings": settings, "capabilities": capabilities, "force": force}
    if is_onnx_export(source):
        return export_tensorrt(Path(source), out, **asked, progress=progress)
    with tempfile.TemporaryDirectory(prefix="guide-fast-export-") as work:
        onnx = Path(work) / "onnx"
        _export.export(generator(), onnx, to="onnx", precision=precision, noise=noise, progress=progress)
        return export_tensorrt(onnx, out, **asked, progress=progress)


def plan_engines(
    source: str,
    out: Path,
    *,
    flavour: str,
    settings: PlanSettings,
    capabilities: Sequence[int],
    deltas: Sequence[Path],
    precision: str,
    noise: str,
    force: bool,
) -> dict[str, Any]:
    """What `build_engines` would do; raises as it would, before any work is done for nothing."""
    tensorrt = load(flavour)
    targets = check(tensorrt, settings, capabilities)
    plan: dict[str, Any] = {"generator": source, "to": "tensorrt", "out": out}
    if is_onnx_export(source):
        if deltas or precision != "fp32" or noise != "const":
            raise UsageError(
                f"{source} is exported already: its deltas, precision, noise are what they are; leave those options "
                "out, or name a generator"
            )
        check_target(out, force=force)
        plan["precision"] = ExportedGenerator.load(source).manifest["precision"]
    else:
        asked: dict[str, Any] = {"precision": precision, "noise": noise, "deltas": deltas, "force": force}
        plan |= _export.plan_export(source, out, to="onnx", **asked) | {"to": "tensorrt"}
    return plan | {
        "flavour": flavour,
        "version": tensorrt.version,
        "weights": settings.weights,
        "compute_capabilities": list(targets),
        "max_batch": settings.max_batch,
    }
