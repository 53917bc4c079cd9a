"""`guide-fast apply`, `guide-fast rollback`: deltas put into generator files, taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import IntegrityError

if TYPE_CHECKING:
    from guide_fast.artifacts import Delta
    from guide_fast.models.generator import Generator

Deltas = Annotated[
    list[Path],
    typer.Argument(help="Delta files, or run folders of `forget`, in the order of forgetting.", show_default=False),
]
Out = Annotated[Path, typer.Option(help="The generator file to write (.safetensors).", show_default=False)]


def apply(
    context: typer.Context,
    deltas: Deltas,
    out: Out,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a generator file with deltas applied, its weights checked against the hash in the last one."""
    options.file_to_write(out)
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast import pipeline

        loaded, changes = _load(generator, deltas)
        for path, delta in changes:
            pipeline.apply_delta(loaded, delta)
            _check_weights(loaded, delta.result_sha256, path)
        _finish(output, loaded, out, "Applied", deltas, dry_run)


def rollback(
    context: typer.Context,
    deltas: Deltas,
    out: Out,
    generator: Annotated[
        str,
        typer.Option("--generator", help="The generator file to restore.", metavar="FILE", show_default=False),
    ],
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a generator file with deltas undone, last one first, its weights checked byte for byte."""
    options.file_to_write(out)
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast import pipeline

        loaded, changes = _load(generator, deltas)
        for path, delta in reversed(changes):
            pipeline.rollback(loaded, delta)
            _check_weights(loaded, delta.base_sha256, path)
        _finish(output, loaded, out, "Undid", deltas, dry_run)


def _load(generator: str, deltas: Sequence[Path]) -> tuple[Generator, list[tuple[Path, Delta]]]:
    from guide_fast import pipeline
    from guide_fast.artifacts import Delta

    changes = [(path, Delta.load(options.delta_file(path))) for path in deltas]
    return pipeline.load_generator(generator, low_resolution=False), changes


def _check_weights(generator: Any, expected: str, delta: Path) -> None:
    from guide_fast.artifacts import weights_sha256

    found = weights_sha256(generator)
    if found != expected:
        raise IntegrityError(
            f"the weights have sha256 {found[:12]} where {delta} promises {expected[:12]}; nothing was written; "
            "restore the delta from a good copy"
        )


def _finish(output: Output, generator: Any, out: Path, verb: str, deltas: Sequence[Path], dry_run: bool) -> None:
    from guide_fast import pipeline
    from guide_fast.artifacts import weights_sha256

    digest = weights_sha256(generator)
    payload: dict[str, Any] = {"deltas": list(deltas), "sha256": digest}
    verb = f"Would have {verb[0].lower()}{verb[1:]}" if dry_run else verb
    what = f"{verb} {', '.join(map(str, deltas))}; the weights have sha256 {digest}."
    if dry_run:
        output.result(
            [what, f"Would write {out}.", "Nothing was changed."], payload | {"would_write": [out], "dry_run": True}
        )
        return
    pipeline.save_generator(generator, out)
    output.result([what, f"  generator  {out}"], payload | {"generator": out})


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    app.command(
        epilog=examples(
            "guide-fast apply out/me --out forgotten.safetensors",
            "guide-fast apply first.safetensors second.safetensors --out both.safetensors",
        )
    )(apply)
    app.command(
        epilog=examples("guide-fast rollback out/me --generator forgotten.safetensors --out restored.safetensors")
    )(rollback)
