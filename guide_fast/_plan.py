"""What a run would do, told without touching disk or network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guide_fast import assets, run_folder
from guide_fast._networks import JUDGE, LOSS_IDENTITY, PERCEPTUAL, THIRD
from guide_fast._person import given_latent
from guide_fast.align import read_photo
from guide_fast.artifacts import Delta, Latent
from guide_fast.config import Config, check_config
from guide_fast.ltu.schedule import candidate_layers
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
    resume: bool = False,
) -> dict[str, Any]:
    """What `forget` would do, without touching disk or network. Raises UsageError as `forget` would."""
    config = check_config(config or Config())
    pinned = [generator] if generator in loading.GENERATORS else []  # a file needs no asset
    needed = [*pinned, LOSS_IDENTITY, PERCEPTUAL, JUDGE, THIRD, *(["mtcnn"] if photo and not aligned else [])]
    missing = [name for name in needed if not assets.available(name)]
    if photo is not None and Path(photo) != assets.verify("demo-photo").path:  # that one may not be fetched yet
        read_photo(photo, config.align)
    for path in deltas:
        Delta.load(Path(path))
    plan: dict[str, Any] = {
        "generator": generator,
        "source": f"photo:{photo}" if photo else f"seed:{seed}" if latent is None else latent.origin,
        "deltas_before": [str(path) for path in deltas],
        "resume": resume,
        "layers": config.ltu.layers,
        "target": config.target.kind,
        "steps_at_most": config.ltu.steps,
        "assets": {"needed": needed, "missing": missing},
        "would_write": [str(out / name) for name in run_folder.FILES] if out else [],
    }
    if generator not in missing:
        loaded = loading.load(generator)
        plan["layers"] = list(candidate_layers(loaded, config.ltu.layers))
        if latent is not None:
            given_latent(loaded, None, latent)
    return plan
