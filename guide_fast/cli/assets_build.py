"""`guide-fast assets build`: train the small encoder, which no registry holds."""

from __future__ import annotations

from typing import Annotated

import typer

from guide_fast.built import SMALL_ENCODER
from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import UsageError


def build(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which network.", metavar="[NAME]")] = SMALL_ENCODER,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    force: Annotated[bool, typer.Option("--force", help="Train again although it is there.")] = False,
    config: options.ConfigFile = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the encoder from which inversions start, on faces that the generator makes.

    It takes a quarter of an hour on two idle CPU cores, 4 GB of memory; the file has 40 MB. Afterwards every inversion
    on that generator starts from it, `--quick` ones end after a few steps.
    """
    settings = options.settings(config, assignments, {})
    with Output(context, json=json, quiet=quiet) as output:
        output.on_interrupt = "stopped; nothing was kept, run the same command to train from the start"
        if name != SMALL_ENCODER:
            raise UsageError(f"nothing called {name!r} is built here; build {SMALL_ENCODER}")
        from guide_fast import built, pipeline

        base = pipeline.load_generator(generator, low_resolution=False)
        path = built.encoder_path(base)
        there = path.is_file() and not force
        if dry_run:
            said = f"{path} is there." if there else f"Would train {name} for {generator}.\nWould write {path}."
            payload = {"name": name, "path": path, "would_write": [] if there else [path], "dry_run": True}
            output.result([*said.splitlines(), "Nothing was changed."], payload)
            return
        if not there:
            pipeline.build_encoder(base, config=settings, progress=output.progress)
        found = built.encoder_metadata(path)
        lines = [
            f"{name} of {found['generator']}: {path}" + (" (was there; --force trains it again)" if there else ""),
            f"Error on faces held out: {found['error']:.2f} of that of the mean face.",
        ]
        output.result(lines, {"name": name, "path": path, "built": not there} | found)


def register(group: typer.Typer) -> None:
    """Add the command to the group of `assets`."""
    group.command(
        epilog=examples("guide-fast assets build small-encoder", "guide-fast assets build --set encoder.samples=4096")
    )(build)
