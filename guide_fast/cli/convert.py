"""`guide-fast convert`: a published checkpoint turned into a generator file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output, as_json
from guide_fast.errors import UsageError

_LICENCE = (
    "The weights keep the licence of their publisher, often for non-commercial research only; "
    "converting them changes nothing about it."
)

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="A StyleGAN2-ADA or EG3D pickle, a rosinality .pt, a state dict.",
        show_default=False,
    ),
]
Target = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="The generator file to write (.safetensors).", show_default=False),
]


def convert(
    context: typer.Context,
    source: Source,
    out: Target,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a published checkpoint into a generator file with its settings beside it; nothing inside is run."""
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} has to end in .safetensors; name it {out.with_suffix('.safetensors')}")
    described = out.with_suffix(".json")
    for path in (out, described):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file, as in {path / 'generator.safetensors'}")
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"{path} is the file to convert; name another one")
    if described.exists() and described == source.with_suffix(".json"):
        raise UsageError(f"{described} holds the settings of {source} and would be overwritten; name another OUT")
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast.artifacts import write_bytes, write_safetensors
        from guide_fast.models.checkpoint import read_checkpoint

        published = read_checkpoint(source)
        count = sum(tensor.numel() for tensor in published.tensors.values())
        record: dict[str, Any] = {
            "config": published.config,
            "format": published.format,
            "source_sha256": published.sha256,
            "licence": _LICENCE,
        }
        payload = record | {"source": source, "tensors": len(published.tensors), "numbers": count}
        what = f"{source}: {published.format}, {_described(published.config)}, {count / 1e6:.1f} M numbers."
        if dry_run:
            output.result(
                [what, f"Would write {out}.", f"Would write {described}.", "Nothing was changed."],
                payload | {"would_write": [out, described], "dry_run": True},
            )
            return
        write_safetensors(out, published.tensors, "generator", {"config": published.config, "lineage": []})
        write_bytes(described, (as_json(record) + "\n").encode())
        output.result(
            [what, f"  generator  {out}", f"  settings   {described}", _LICENCE],
            payload | {"generator": out, "settings": described},
        )


def _described(config: dict[str, Any]) -> str:
    kind = {"stylegan2": "StyleGAN2", "eg3d": "EG3D"}[config["family"]]
    conditioned = f", {config['c_dim']} conditions" if config["c_dim"] else ""
    return f"{kind} of {config['img_resolution']} px{conditioned}"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast convert stylegan2-ffhq-256x256.pkl ffhq256.safetensors",
            "guide-fast convert ffhqrebalanced512-128.pkl eg3d.safetensors --dry-run",
        )
    )(convert)
