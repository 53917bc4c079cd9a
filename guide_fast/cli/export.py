"""`guide-fast export`: a generator written for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from guide_fast.cli import export_tensorrt, options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output, described

Generator = Annotated[
    str,
    typer.Argument(
        help="A known generator, a generator file; for tensorrt also a folder written by `export --to onnx`.",
        metavar="GENERATOR|FOLDER",
    ),
]
Out = Annotated[Path, typer.Option(help="The folder to write.", show_default=False)]


def export(
    context: typer.Context,
    out: Out,
    generator: Generator = options.DEFAULT_GENERATOR,
    to: Annotated[str, typer.Option(help="The runtime: onnx or tensorrt.", metavar="RUNTIME")] = "onnx",
    delta: options.EarlierDeltas = None,
    precision: Annotated[str, typer.Option(help="Of feature maps: fp32 or fp16.")] = "fp32",
    noise: Annotated[str, typer.Option(help="The noise maps: const (baked in) or none.")] = "const",
    force: Annotated[bool, typer.Option("--force", help="Replace an exported generator that lies there.")] = False,
    flavour: export_tensorrt.Flavour = "tensorrt_rtx",
    weights: export_tensorrt.Weights = "refit",
    compute_capability: export_tensorrt.Capabilities = None,
    max_batch: export_tensorrt.MaxBatch = 8,
    strip: export_tensorrt.Strip = False,
    timing_cache: export_tensorrt.TimingCache = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a generator for another runtime, with deltas applied, checked against PyTorch.

    The folder receives one file a part, the weights that later deltas apply to, engine.json that describes both.
    """
    options.folder_to_write(out)
    deltas = [options.delta_file(path) for path in delta or ()]
    asked: dict[str, Any] = {"to": to, "precision": precision, "noise": noise, "force": force}
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast import pipeline

        if to == "tensorrt":
            from guide_fast.export.tensorrt_plan import PlanSettings

            export_tensorrt.run(
                output,
                generator,
                out,
                flavour=flavour,
                settings=PlanSettings(weights, max_batch, strip, timing_cache),
                capabilities=compute_capability or (),
                deltas=deltas,
                precision=precision,
                noise=noise,
                force=force,
                dry_run=dry_run,
            )
            return
        plan = pipeline.plan_export(generator, out, deltas=deltas, **asked)
        if dry_run:
            output.result([*described(plan), "Nothing was changed."], plan | {"dry_run": True})
            return
        loaded = pipeline.load_generator(generator, deltas=deltas, low_resolution=False, progress=output.progress)
        done = pipeline.export(loaded, out, **asked, progress=output.progress)
        manifest = done.manifest
        files = [{"name": part.name, "path": part.path, "sha256": part.sha256} for part in done.parts]
        measured = manifest["max_of_range"]
        lines = [f"  {part.name:17}{part.path}  {part.sha256}" for part in done.parts]
        lines += [f"Farthest from PyTorch, of the range of {name}: {value:.1e}" for name, value in measured.items()]
        payload = {name: manifest[name] for name in _TOLD if name in manifest}
        output.result([*lines, manifest["licence"]], {"out": out, "files": files} | payload)


_TOLD = (
    "runtime",
    "generator",
    "family",
    "precision",
    "noise",
    "opset",
    "weights_sha256",
    "lineage",
    "max_of_range",
    "licence",
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast export --to onnx --out out/onnx",
            "guide-fast export --to onnx --delta out/me --precision fp16 --out out/onnx-me",
            "guide-fast export out/onnx --to tensorrt --weights inputs --compute-capability 89 --out out/rtx40",
            "guide-fast export ffhq256.safetensors --out out/ffhq256 --dry-run --json",
        )
    )(export)
