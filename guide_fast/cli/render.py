"""`guide-fast render`: images from a generator."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image


def render(
    context: typer.Context,
    seed: options.PersonSeeds = None,
    latent: Annotated[Path | None, typer.Option(help="The person of this latent file.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder of the images.")] = Path("out/render"),
    truncation: Annotated[float, typer.Option(help="1 as sampled, 0 the mean face.", min=0.0, max=1.0)] = 1.0,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    label: options.Label = None,
    delta: options.EarlierDeltas = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the images that a generator makes, also after deltas."""
    if bool(seed) == (latent is not None):
        raise UsageError("name what to render by either --seed or --latent, one of them")
    for number in seed or ():
        options.check_seed(number)
    names = [f"seed-{number}" for number in seed] if seed else [latent.stem if latent else ""]
    files = [options.folder_to_write(out) / f"{name}.png" for name in names]
    deltas = [options.delta_file(path) for path in delta or ()]
    with Output(context, json=json, quiet=quiet) as output:
        output.on_interrupt = f"stopped; the images that were ready lie in {out}"
        from guide_fast.artifacts import Latent, write_bytes

        person = Latent.load(latent) if latent else None
        if dry_run:
            lines = [*(f"Would write {file}." for file in files), "Nothing was changed."]
            output.result(lines, {"generator": generator, "would_write": files, "dry_run": True})
            return
        from guide_fast import pipeline

        loaded = pipeline.load_generator(generator, label=label, deltas=deltas, low_resolution=False)
        for number, file in enumerate(files):
            output.progress("rendering", number, len(files), {})
            source = {"latent": person} if person else {"seeds": [(seed or [])[number]]}
            image = pipeline.render(loaded, **source, truncation=truncation)[0]
            write_bytes(file, _png(image))
        output.progress("rendering", len(files), len(files), {})
        output.result(map(str, files), {"files": files})


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast render --seed 7 --seed 8 --out faces",
            "guide-fast render --seed 7 --delta out/seed-7 --out after",
            "guide-fast render --latent w.safetensors --truncation 0.7",
        )
    )(render)
