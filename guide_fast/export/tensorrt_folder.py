"""An exported ONNX folder turned into a folder of TensorRT engines.

The plans of every architecture lie side by side (`synthesis.sm89.plan`); engine.json lists each as a part with its
`compute_capability`, beside the same weights, the same rules as the ONNX export, so that deltas apply to both alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export import folder
from guide_fast.export.cuda_driver import Gpu
from guide_fast.export.folder import ExportedGenerator, Part
from guide_fast.export.staging import check_target, staged
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.tensorrt_network import require
from guide_fast.export.tensorrt_plan import Plan, PlanSettings, build, check
from guide_fast.progress import Progress, silent

SOURCE = "onnx"
DEFAULTS = PlanSettings()


def export_tensorrt(
    source: Path,
    out: Path,
    *,
    tensorrt: Tensorrt,
    settings: PlanSettings = DEFAULTS,
    capabilities: Sequence[int] = (),
    gpu: Gpu | str | None = None,  # default: what the CUDA driver finds
    force: bool = False,
    progress: Progress = silent,
) -> ExportedGenerator:
    """Build the engines of the ONNX export `source` into the folder `out`, for every one of `capabilities`.

    Raises UsageError for what cannot be built here or a `source` that is no ONNX export, IntegrityError when its files
    are damaged; GuideFastError for a node that TensorRT does not take, or a tensor of the manifest's `refit` that could
    not be exchanged in a running engine. Nothing is left then.
    """
    onnx = _onnx()
    targets = check(tensorrt, settings, capabilities, gpu=gpu)
    exported = ExportedGenerator.load(source)
    if exported.manifest["runtime"] != SOURCE:
        raise UsageError(f"{source} was exported for {exported.manifest['runtime']}; give an export --to onnx")
    check_target(Path(out), force=force)
    tensors = refit_tensors(exported)
    steps = len(targets) * len(exported.parts)
    progress("export", 0, steps, {})
    with staged(Path(out), force=force) as work:
        entries, plans = [], []
        for part in exported.parts:
            model = onnx.load(str(part.path))
            names = tensors.get(part.name, ())
            require(names, (t.name for t in model.graph.initializer), part=part.name, what="initializers of its graph")
            for capability in targets:
                plan = build(tensorrt, model, part=part.name, names=names, capability=capability, settings=settings)
                plans.append(plan)
                entries.append(_written(work, exported, part, plan, capability))
                progress("export", len(plans), steps, {})
        shutil.copyfile(exported.folder / folder.WEIGHTS, work / folder.WEIGHTS)
        manifest = {
            **{key: value for key, value in exported.manifest.items() if key not in ("parts", "runtime")},
            "runtime": tensorrt.flavour.name,
            "tensorrt": _described(tensorrt, settings, targets, exported),
            "parts": entries,
        }
        (work / folder.MANIFEST).write_text(folder.manifest_text(manifest), encoding="utf-8")
    return ExportedGenerator.load(out)


def refit_tensors(exported: ExportedGenerator) -> dict[str, tuple[str, ...]]:
    """Part name -> every tensor in it that a delta can touch."""
    found: dict[str, dict[str, None]] = {}
    for entry in exported.manifest["refit"]:
        found.setdefault(entry["part"], {})[entry["tensor"]] = None
    return {part: tuple(tensors) for part, tensors in found.items()}


def _written(work: Path, exported: ExportedGenerator, part: Part, plan: Plan, capability: int) -> dict[str, Any]:
    path = work / f"{part.name}.sm{capability}.plan"
    path.write_bytes(plan.data)
    entry: Mapping[str, Any] = next(entry for entry in exported.manifest["parts"] if entry["name"] == part.name)
    return {
        "name": part.name,
        "file": path.name,
        "sha256": folder.file_sha256(path),
        "compute_capability": capability,
        "inputs": entry["inputs"],
        "outputs": entry["outputs"],
        "profile": {name: {key: list(shape) for key, shape in sizes.items()} for name, sizes in plan.profile.items()},
        "exchangeable": list(plan.exchangeable),
        "proven_by": plan.proven_by,
        "build_seconds": round(plan.seconds, 3),
    }


def _described(
    tensorrt: Tensorrt,
    settings: PlanSettings,
    targets: Sequence[int],
    exported: ExportedGenerator,
) -> dict[str, Any]:
    return {
        "version": tensorrt.version,
        "weights": settings.weights,
        "stripped": settings.strip,
        "max_batch": settings.max_batch,
        "compute_capabilities": list(targets),
        "onnx": {part.name: part.sha256 for part in exported.parts},  # what the plans were built from
    }


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise GuideFastError("building TensorRT engines needs onnx; pip install 'guide-fast[tensorrt]'") from None
    return onnx
