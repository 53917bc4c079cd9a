"""`guide-fast evaluate`: measure what a delta did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guide_fast.cli import options
from guide_fast.cli.evidence import sentences
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import EvidenceError

LATENT = "latent.safetensors"


def evaluate(
    context: typer.Context,
    run: Annotated[
        Path, typer.Argument(help="A run folder of `forget`, or a delta file.", metavar="RUN", show_default=False)
    ],
    latent: Annotated[
        Path | None,
        typer.Option(help="The person's latent file.", show_default=f"{LATENT} beside the delta"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the metrics with the pictures.", show_default="evaluation beside the delta"),
    ] = None,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    label: options.Label = None,
    delta: options.EarlierDeltas = None,
    run_seed: options.RunSeed = None,
    config: options.ConfigFile = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure with the held-out judge what a delta did to the person, their neighbours, everybody else."""
    settings = options.settings(config, assignments, {"evaluate.seed": run_seed})
    file = options.delta_file(run)
    folder = options.folder_to_write(out or file.parent / "evaluation")
    person = latent or file.parent / LATENT
    earlier = [options.delta_file(path) for path in delta or ()]
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast.artifacts import Delta, Latent

        measured, source = Delta.load(file), Latent.load(person)
        if dry_run:
            lines = [f"Would measure {file} on the person of {person}.", f"Would write to {folder}."]
            payload = {"delta": file, "latent": person, "generator": generator, "would_write": [folder]}
            output.result([*lines, "Nothing was changed."], payload | {"dry_run": True})
            return
        from guide_fast import pipeline

        report = pipeline.evaluate_delta(
            pipeline.load_generator(generator, label=label, deltas=earlier, low_resolution=False),
            measured,
            source,
            config=settings,
            out=folder,
            progress=output.progress,
        )
        shortfalls = list(report.metrics.get("shortfalls", ()))
        lines = [*sentences(report.metrics), *(f"Falls short: {said}" for said in shortfalls), f"  metrics  {folder}"]
        output.result(lines, {"out": folder, "metrics": report.metrics, "shortfalls": shortfalls})
        if shortfalls:
            raise typer.Exit(EvidenceError.exit_code)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast evaluate out/me",
            "guide-fast evaluate second.safetensors --delta first.safetensors --latent w.safetensors",
        )
    )(evaluate)
