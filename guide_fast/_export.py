"""Exporting a generator, with the licence of its weights; told without doing it, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guide_fast import assets
from guide_fast.deltas import apply_delta
from guide_fast.errors import UsageError
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.to_onnx import check_request, export_onnx
from guide_fast.models import loading
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

TARGETS = ("onnx",)
_PUBLISHER = "The weights keep the licence of their publisher, often for non-commercial research only."


def export(
    generator: Generator,
    out: Path | str,
    *,
    to: str = "onnx",
    precision: str = "fp32",
    noise: str = "const",
    force: bool = False,
    progress: Progress = silent,
) -> ExportedGenerator:
    """Write `generator`, with the deltas applied to it, to the folder `out` for another runtime.

    `to` "onnx": a graph a part, checked against PyTorch. `precision` "fp16" has feature maps in half precision. `noise`
    "none" leaves the noise maps out. `force` replaces an earlier export. The folder appears whole or not at all. Raises
    UsageError for a request that makes no sense or an existing folder, GuideFastError when a package is missing, the
    disk refuses, the exported generator does not do what this one does.
    """
    _check_target(to)
    return export_onnx(
        generator,
        Path(out),
        precision=precision,
        noise=noise,
        licence=licence_of(generator),
        force=force,
        progress=progress,
    )


def plan_export(
    name: str, out: Path, *, to: str, precision: str, noise: str, deltas: Sequence[Path], force: bool
) -> dict[str, Any]:
    """What loading `name`, then `export` would do; reads files, writes none, fetches nothing. Raises as they would."""
    _check_target(to)
    check_request(out, precision=precision, noise=noise, force=force)
    missing = []
    if name in loading.GENERATORS and assets.verify(name).state != "ok":
        missing = [name]
    plan: dict[str, Any] = {"generator": name, "to": to, "precision": precision, "noise": noise}
    plan |= {"deltas": list(deltas), "out": out, "assets": {"missing": missing}}
    if not missing:
        generator: Generator = loading.load(name)
        for delta in deltas:
            apply_delta(generator, delta)
        plan |= {"lineage": list(generator.lineage), "licence": licence_of(generator)}
    return plan


def licence_of(generator: Generator) -> str:
    """What is known of the licence of its weights, for whoever gets the exported form."""
    if generator.name in loading.GENERATORS:
        pin = assets.asset(generator.name)
        return f"{pin.licence}. {pin.notice}"
    return _PUBLISHER


def _check_target(to: str) -> None:
    if to not in TARGETS:
        raise UsageError(f"exporting to {to!r} is not known; choose one of {', '.join(TARGETS)}")
