"""A generator written as a folder of ONNX graphs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_fast.artifacts import weights_sha256, write_safetensors
from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export import folder
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.onnx_layers import initializers
from guide_fast.export.onnx_parts import check_noise, examples, family, parts_of, weights_of
from guide_fast.export.staging import check_target, staged
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

if TYPE_CHECKING:
    from guide_fast.export.onnx_graph import PartModule

RUNTIME = "onnx"
# of the range of a part's outputs, on the same inputs; what half precision was measured at is in the README
BOUNDS = {"fp32": 1e-4, "fp16": 2e-2}
# Of the image from z: the synthesis network multiplies the mapping's rounding, in PyTorch as elsewhere.
CHAIN_BOUNDS = {"fp32": 1e-3, "fp16": 5e-2}
EXTRA = 'pip install "guide-fast[export]"'
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def export_onnx(
    generator: Generator,
    out: Path,
    *,
    precision: str = "fp32",
    noise: str = "const",
    licence: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> ExportedGenerator:
    """Write `generator` to the folder `out`, checked by onnx.checker and against PyTorch in ONNX Runtime.

    Raises UsageError for an unknown precision or noise, an existing folder without `force`; GuideFastError when the
    packages of the extra `export` are missing, the disk refuses, or outputs lie farther from PyTorch's than BOUNDS.
    Nothing is left then.
    """
    check_request(out, precision=precision, noise=noise, force=force)
    parts = parts_of(generator, half=precision == "fp16", noise=noise)
    steps = len(parts) + 1
    progress("export", 0, steps, {})
    with staged(out, force=force) as work:
        described = {
            "runtime": RUNTIME,
            "generator": generator.name,
            "family": family(generator),
            "weights_sha256": weights_sha256(generator),
            "lineage": list(generator.lineage),
            "precision": precision,
            "noise": noise,
            "licence": licence,
            "guide_fast": packages.version("guide-fast"),
        }
        entries = []
        for done, part in enumerate(parts, 1):
            entries.append(_write_part(work, part, described))
            progress("export", done, steps, {})
        measured = _measured(generator, work, parts, precision, noise)
        write_safetensors(work / folder.WEIGHTS, weights_of(generator), folder.WEIGHTS_KIND, {})
        from guide_fast.export.onnx_graph import OPSET

        manifest = described | {
            "opset": OPSET,
            "parts": entries,
            "refit": [entry for part in parts for entry in refit_entries(part, generator)],
            "max_of_range": measured,
        }
        (work / folder.MANIFEST).write_text(folder.manifest_text(manifest), encoding="utf-8")
        progress("export", steps, steps, {})
    return ExportedGenerator.load(out)


def check_request(out: Path, *, precision: str, noise: str, force: bool) -> None:
    """Raise what `export_onnx` would raise before it does any work."""
    if precision not in BOUNDS:
        raise UsageError(f"precision={precision!r} is not known to ONNX export; choose one of {', '.join(BOUNDS)}")
    check_noise(noise)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise GuideFastError(f"exporting to ONNX needs {', '.join(missing)}; run `{EXTRA}`")
    check_target(Path(out), force=force)


def refit_entries(part: PartModule, generator: Generator) -> list[dict[str, Any]]:
    """Which initializer follows by which rule from which parameter; what is no parameter cannot change."""
    parameters = {name for name, _ in generator.named_parameters()}
    entries: list[dict[str, Any]] = []
    for path, tensor, rule in initializers(part.module):
        if rule.source in parameters:
            entry: dict[str, Any] = {"part": part.name, "tensor": tensor, "source": rule.source, "rule": rule.rule}
            entry |= {"factor": rule.factor} if rule.factor != 1 else {}
            entries.append(entry | {"dtype": rule.dtype, "shape": list(part.module.get_buffer(path).shape)})
    return entries


def _write_part(work: Path, part: PartModule, described: Mapping[str, Any]) -> dict[str, Any]:
    from guide_fast.export.onnx_graph import make_graph

    properties = {
        f"guide_fast.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in described.items()
    }
    model = make_graph(part, properties)
    path = work / f"{part.name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return {
        "name": part.name,
        "file": path.name,
        "sha256": folder.file_sha256(path),
        "inputs": _ports(model.graph.input),
        "outputs": _ports(model.graph.output),
    }


def _ports(values: Any) -> list[dict[str, Any]]:
    from onnx.helper import tensor_dtype_to_np_dtype

    return [
        {
            "name": value.name,
            "shape": [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim],
            "dtype": tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        }
        for value in values
    ]


def _measured(
    generator: Generator, work: Path, parts: list[PartModule], precision: str, noise: str
) -> dict[str, float]:
    from guide_fast.export.onnx_compare import DEPTH, IMAGE, compare

    expected = examples(generator, batch=2, seed=1, noise=noise)
    measured = compare({part.name: work / f"{part.name}.onnx" for part in parts}, expected)
    for part, difference in measured.items():
        if part == DEPTH:
            continue  # unbounded: it has no digits where a ray meets next to nothing, in PyTorch neither
        bound = (CHAIN_BOUNDS if part == IMAGE else BOUNDS)[precision]
        if not difference <= bound:
            raise GuideFastError(
                f"{part} of {generator.name} in {precision} lies {difference:.1e} of its range from PyTorch in ONNX "
                f"Runtime, {bound:.0e} is allowed; nothing was written"
                + ("; export it with --precision fp32" if precision != "fp32" else "; try another onnxruntime")
            )
    return measured
