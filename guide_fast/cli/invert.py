"""`guide-fast invert`: find a photo's latent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guide_fast._run_files import written
from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import NOTHING_TO_RESUME, Output
from guide_fast.errors import UsageError

STOPPED = ".stopped.safetensors"  # takes the place of the latent file's suffix


def invert(
    context: typer.Context,
    photo: Annotated[Path, typer.Option(help="A photo of the person.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="The latent file to write (.safetensors).", show_default="out/<photo>/latent.safetensors"),
    ] = None,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    label: options.Label = None,
    delta: options.EarlierDeltas = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search that was stopped for --out.")] = False,
    face: options.Face = None,
    aligned: options.Aligned = False,
    force: options.Force = False,
    quick: options.Quick = False,
    run_seed: options.RunSeed = None,
    config: options.ConfigFile = None,
    assignments: options.Assignments = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the latent from which a generator makes the person of a photo.

    The judge, a network that the search does not use, says how much the result resembles the photo.
    """
    settings = options.settings(config, assignments, {"ltu.seed": run_seed, "invert.refine": False if quick else None})
    file = options.file_to_write(out or Path("out") / (photo.stem or "photo") / "latent.safetensors")
    state = file.with_suffix(STOPPED)
    if resume and not state.is_file():
        raise UsageError(f"there is no stopped search for {file} to resume; leave --resume out, or name its --out")
    before = written(state)
    deltas = [options.delta_file(path) for path in delta or ()]
    with Output(context, json=json, quiet=quiet) as output:
        output.on_interrupt = NOTHING_TO_RESUME
        if not photo.is_file():
            found = "is a folder" if photo.is_dir() else "does not exist"
            raise UsageError(f"{photo} {found}; give --photo an image file")
        if dry_run:
            lines = [f"Would invert {photo} with {generator}.", f"Would write {file}.", "Nothing was changed."]
            output.result(lines, {"photo": photo, "generator": generator, "would_write": [file], "dry_run": True})
            return
        from guide_fast import pipeline

        try:
            latent = pipeline.invert_photo(
                pipeline.load_generator(generator, label=label, deltas=deltas, progress=output.progress),
                photo,
                face=face,
                aligned=aligned,
                force=force,
                config=settings,
                progress=output.progress,
                state=state,
                resume=resume,
            )
        except KeyboardInterrupt:
            if written(state) not in (None, before):
                output.on_interrupt = output.way_on
            raise
        latent.save(file)
        unknown = latent.similarity is None
        said = "not measured: no judge" if unknown else f"{latent.similarity:.2f}"
        output.result(
            [f"Similarity of the inversion to the photo: {said}.", f"  latent   {file}"],
            {"latent": file, "similarity": latent.similarity, "origin": latent.origin, "notes": latent.notes},
        )


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast invert --photo me.jpg --out out/me/latent.safetensors",
            "guide-fast invert --photo group.jpg --face 1 --set invert.samples=512",
        )
    )(invert)
