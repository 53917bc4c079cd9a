"""The names of the files in a run folder, free of imports that take seconds."""

from __future__ import annotations

from pathlib import Path

from guide_fast.errors import UsageError

LATENT, CONFIG, DELTA = "latent.safetensors", "config.json", "delta.safetensors"
ENVIRONMENT = "environment.json"
FILES = (DELTA, "metrics.json", "grid.png", "report.html", LATENT, CONFIG, ENVIRONMENT)
# What only a stopped run has: the inversion's state, the loop's, what was spent so far.
INVERSION, STATE, SPENT = "inversion.safetensors", "state.safetensors", "spent.json"
STATES = (INVERSION, STATE, SPENT)
EARLIER = ".earlier-run"  # a folder: what an earlier run left, until the present one can no longer diverge


def stopped(folder: Path) -> bool:
    """Whether a run was stopped in `folder` that `--resume` would continue."""

    def has(name: str) -> bool:
        return (folder / name).is_file()

    # before the loop's first state; a latent without settings is what `guide-fast invert` leaves
    between = has(CONFIG) and not has(DELTA)
    return has(INVERSION) or (has(LATENT) and (has(STATE) or between))


def resumable(folder: Path | None) -> Path:
    """`folder` itself; raises UsageError when no run was stopped in it."""
    if folder is None:
        raise UsageError("no folder was named to resume a run in; give `out`, the folder of the stopped run")
    if not stopped(folder):
        raise UsageError(f"{folder} holds no stopped run to resume; leave --resume out, or name its folder with --out")
    return folder


def left_over(folder: Path) -> list[Path]:
    """The files of an earlier run in `folder`, which starting anew removes."""
    return [folder / name for name in (*FILES, *STATES) if (folder / name).is_file()]


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells the files that a run is resumed from in `folder` from later ones of the same names."""
    found = {name: written(folder / name) for name in (INVERSION, LATENT, STATE)}
    return {name: version for name, version in found.items() if version}


def written(file: Path) -> tuple[int, int] | None:
    """What tells `file` from a later one of the same name; None where there is none."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.is_file() else None
