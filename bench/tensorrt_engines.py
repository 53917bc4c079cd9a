"""TensorRT engines of every family at its published size: seconds to build, bytes, weights that can be exchanged.

Run it as `python -m guide_fast.bench.tensorrt_engines` from the root of the repository; it needs no GPU, because
TensorRT for RTX builds ahead of time. The default generator has its weights, StyleGAN2 at 256 px with EG3D at 512 px
random ones. `refittable` counts the tensors that a network accepts as refittable, of those that a delta can touch;
`inputs`, `fixed` are engines that hold them as inputs, as constants. A refittable engine itself needs a GPU to build.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from guide_fast.bench.generators import bench_eg3d_image, bench_stylegan2_image
from guide_fast.bench.generators.whole_image import random_weights
from guide_fast.bench.record import provenance, write
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt, load
from guide_fast.export.tensorrt_folder import export_tensorrt, refit_tensors
from guide_fast.export.tensorrt_plan import PlanSettings, marked
from guide_fast.export.to_onnx import export_onnx
from guide_fast.models.eg3d import EG3D
from guide_fast.models.generator import Generator
from guide_fast.models.stylegan2 import StyleGAN2

CAPABILITIES = (86, 89, 120)  # RTX 30, RTX 40, RTX 50
KINDS = ("inputs", "fixed")


def default() -> Generator:
    """The generator with its weights."""
    from guide_fast.pipeline import load_generator

    return load_generator(low_resolution=False)


def stylegan2() -> Generator:
    """256 px, random weights."""
    return cast(Generator, random_weights(StyleGAN2(bench_stylegan2_image.config(256))))


def eg3d() -> Generator:
    """512 px, random weights."""
    return cast(Generator, random_weights(EG3D(bench_eg3d_image.config(bench_eg3d_image.PUBLISHED))))


GENERATORS: dict[str, Callable[[], Generator]] = {"default": default, "stylegan2-256": stylegan2, "eg3d-512": eg3d}


def main() -> int:
    """Build, print, store; 1 when a tensor that a delta touches could not be exchanged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=[*GENERATORS])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16"), default=["fp32", "fp16"])
    parser.add_argument("--flavour", default="tensorrt_rtx")
    parser.add_argument("--name", default="tensorrt_engines")
    arguments = parser.parse_args()
    tensorrt = load(arguments.flavour)
    rows = []
    for name in arguments.generators:
        generator = GENERATORS[name]()
        for precision in arguments.precisions:
            rows += measure(tensorrt, name, generator, precision)
    result = {"provenance": provenance(), "tensorrt": f"{tensorrt.flavour.title} {tensorrt.version}", "rows": rows}
    print(write(arguments.name, "cpu", result))
    complete = all(row["touched"] == row["refittable"] == row["inputs"]["exchangeable"] for row in rows)
    return 0 if complete else 1


def measure(
    tensorrt: Tensorrt,
    name: str,
    generator: Generator,
    precision: str,
    *,
    capabilities: Sequence[int] = CAPABILITIES,
) -> list[dict[str, Any]]:
    """A row a part; prints each."""
    with tempfile.TemporaryDirectory(prefix="tensorrt-engines-") as folder:
        source = export_onnx(generator, Path(folder) / "onnx", precision=precision)
        engines = {
            kind: export_tensorrt(
                source.folder,
                Path(folder) / kind,
                tensorrt=tensorrt,
                settings=PlanSettings(kind),
                capabilities=capabilities,
            )
            for kind in KINDS
        }
        rows = [_row(tensorrt, source, engines, part.name) for part in source.parts]
    for row in rows:
        row |= {"generator": name, "precision": precision}
        print(row)
    return rows


def _row(
    tensorrt: Tensorrt, source: ExportedGenerator, engines: dict[str, ExportedGenerator], part: str
) -> dict[str, Any]:
    names = refit_tensors(source).get(part, ())
    path = next(each.path for each in source.parts if each.name == part)
    row: dict[str, Any] = {
        "part": part,
        "onnx_bytes": path.stat().st_size,
        "touched": len(names),
        "refittable": len(marked(tensorrt, path.read_bytes(), part=part, names=names)),
    }
    for kind, exported in engines.items():
        entries = [entry for entry in exported.manifest["parts"] if entry["name"] == part]
        row[kind] = {
            "exchangeable": min(len(entry["exchangeable"]) for entry in entries),
            "build_seconds": {str(entry["compute_capability"]): entry["build_seconds"] for entry in entries},
            "plan_bytes": {
                str(entry["compute_capability"]): (exported.folder / entry["file"]).stat().st_size for entry in entries
            },
        }
    return row


if __name__ == "__main__":
    raise SystemExit(main())
