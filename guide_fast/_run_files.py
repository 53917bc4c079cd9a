"""The names of the files in a run folder, free of imports that take seconds."""

from __future__ import annotations

from pathlib import Path

LATENT, CONFIG, DELTA = "latent.safetensors", "config.json", "delta.safetensors"
FILES = (DELTA, "metrics.json", "grid.png", "report.html", LATENT, CONFIG, "environment.json")
# What only a stopped run has: the inversion's state, the loop's, the seconds spent so far.
INVERSION, STATE, SECONDS = "inversion.safetensors", "state.safetensors", "seconds.json"


def stopped(folder: Path) -> bool:
    """Whether a run was stopped in `folder` that `--resume` would continue."""
    if any((folder / name).is_file() for name in (INVERSION, STATE)):
        return True
    # between the two states; a latent without settings is what `guide-fast invert` leaves
    return all((folder / name).is_file() for name in (LATENT, CONFIG)) and not (folder / DELTA).is_file()
