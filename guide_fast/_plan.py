"""What a run would do, told without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guide_fast import assets, brought
from guide_fast._generators import attach_small, loaded
from guide_fast._networks import JUDGE, LOSS_IDENTITY, PERCEPTUAL, THIRD, fitting_encoder
from guide_fast._request import Asked, resumed
from guide_fast._run_files import FILES, left_over, resumable
from guide_fast.artifacts import Latent
from guide_fast.config import Config, check_config
from guide_fast.models import loading


def plan_forget(
    generator: str,
    *,
    photo: Path | None = None,
    seed: int | None = None,
    latent: Latent | None = None,
    face: int | None = None,
    aligned: bool = False,
    force: bool = False,
    config: Config | None = None,
    out: Path | None = None,
    deltas: Sequence[Path] = (),
    label: int | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """What `load_generator`, then `forget` would do; reads files, writes none, fetches nothing.

    Raises whatever they would before they render anything, as far as assets that are there allow to tell.
    """
    asked = Asked(photo, seed, latent, face, aligned, check_config(config or Config()))
    pinned = [generator] if generator in loading.GENERATORS else []  # a file needs no asset
    needed = [*pinned, LOSS_IDENTITY, PERCEPTUAL, JUDGE, THIRD, *(["mtcnn"] if photo and not aligned else [])]
    missing = [name for name in needed if not assets.available(name)]
    demo = assets.verify("demo-photo").path
    unfetched = photo is not None and Path(photo) == demo and not demo.exists()
    if not unfetched:
        asked.check_source()
    stopped = resumable(out) if resume else None
    plan: dict[str, Any] = {
        "generator": generator,
        "source": f"photo:{photo}" if photo else f"seed:{seed}" if latent is None else latent.origin,
        "deltas_before": [str(path) for path in deltas],
        "resume": resume,
        "layers": asked.config.ltu.layers,
        "target": asked.config.target.kind,
        "steps_at_most": asked.config.ltu.steps,
        "assets": {"needed": needed, "missing": missing},
        "encoder": None,
        "brought": _brought(None),
        "would_write": [str(out / name) for name in FILES] if out else [],
        "would_remove": [str(file) for file in left_over(out)] if out and not resume else [],
    }
    if generator not in missing:
        base = loaded(generator, deltas, label=label, low_resolution=stopped is not None, write=False)
        plan["layers"] = list(asked.check_for(base))
        if photo is not None:
            plan["encoder"] = fitting_encoder(base)
            plan["brought"] = _brought(plan["encoder"])
        if stopped is not None and not unfetched:
            attach_small(base, asked.config.ltu.resolution, write=False)
            resumed(stopped, asked.described(base), asked.config, force=force)
    return plan


def _brought(encoder: str | None) -> dict[str, list[str]]:
    """The user's own networks: those the run uses, those it does not, those its evaluation would use."""
    there = {known.name: brought.available(known.name) for known in brought.list_brought()}
    evaluating = {known.name for known in brought.list_brought() if known.metric}
    used = evaluating | {encoder}
    return {
        "used": [name for name, found in there.items() if found and name in used],
        "not_used": [name for name, found in there.items() if found and name not in used],
        "absent": [name for name, found in there.items() if not found and name in evaluating],
    }
