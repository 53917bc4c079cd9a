"""What `guide-fast export --to tensorrt` adds: its options, its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guide_fast.cli.output import Output, described

if TYPE_CHECKING:
    from guide_fast.export.folder import ExportedGenerator
    from guide_fast.export.tensorrt_plan import PlanSettings

PANEL = "TensorRT"

Flavour = Annotated[
    str,
    typer.Option(help="tensorrt_rtx (builds for GPUs that are not here) or tensorrt.", rich_help_panel=PANEL),
]
Weights = Annotated[
    str,
    typer.Option(
        help="How engines hold what a delta changes: refit (needs a GPU to build), inputs, or fixed (for good).",
        rich_help_panel=PANEL,
    ),
]
Capabilities = Annotated[
    list[int] | None,
    typer.Option(
        "--compute-capability",
        help="A GPU architecture to build for, as in 86, 89, 120; repeatable.",
        show_default="the GPU at hand",
        rich_help_panel=PANEL,
    ),
]
MaxBatch = Annotated[int, typer.Option(help="The largest batch that the engines take.", rich_help_panel=PANEL)]
Strip = Annotated[
    bool, typer.Option("--strip", help="Leave refittable weights out of the plans.", rich_help_panel=PANEL)
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        help="A file that keeps measurements between builds (tensorrt).", show_default=False, rich_help_panel=PANEL
    ),
]


def run(
    output: Output,
    source: str,
    out: Path,
    *,
    flavour: str,
    settings: PlanSettings,
    capabilities: Sequence[int],
    deltas: Sequence[Path],
    precision: str,
    noise: str,
    force: bool,
    dry_run: bool,
) -> None:
    """Build, or say what would be built."""
    from guide_fast import _engines, pipeline

    asked: dict[str, Any] = {"flavour": flavour, "settings": settings, "capabilities": capabilities, "force": force}
    asked |= {"precision": precision, "noise": noise}
    plan = _engines.plan_engines(source, out, deltas=deltas, **asked)
    if dry_run:
        output.result([*described(plan), "Nothing was changed."], plan | {"dry_run": True})
        return
    done = _engines.build_engines(
        source,
        out,
        generator=lambda: pipeline.load_generator(
            source, deltas=deltas, low_resolution=False, progress=output.progress
        ),
        progress=output.progress,
        **asked,
    )
    output.result(*_said(done))


def _said(done: ExportedGenerator) -> tuple[list[str], dict[str, Any]]:
    manifest = done.manifest
    files = [
        {
            "name": entry["name"],
            "path": done.folder / entry["file"],
            "sha256": entry["sha256"],
            "compute_capability": entry["compute_capability"],
            "exchangeable": entry["exchangeable"],
            "proven_by": entry["proven_by"],
            "build_seconds": entry["build_seconds"],
        }
        for entry in manifest["parts"]
    ]
    lines = [
        f"  {file['path']}  {file['sha256'][:12]}  {len(file['exchangeable'])} weights that deltas change"
        for file in files
    ]
    told = ("runtime", "generator", "family", "precision", "tensorrt", "weights_sha256", "lineage", "licence")
    payload = {"out": done.folder, "files": files} | {name: manifest[name] for name in told}
    return [*lines, manifest["licence"]], payload
