"""Generators as a run needs them: with earlier deltas, with a small output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from guide_fast import assets
from guide_fast.artifacts import Delta
from guide_fast.config import Config
from guide_fast.deltas import apply_delta
from guide_fast.models import loading
from guide_fast.models.generator import Generator
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.progress import Progress, silent

DEFAULT_GENERATOR = loading.GENERATORS[0]


def load_generator(
    name: str | Path = DEFAULT_GENERATOR,
    *,
    deltas: Sequence[Path | Delta] = (),
    low_resolution: bool = True,
    progress: Progress = silent,
) -> Generator:
    """A generator by name or from a file, with `deltas` applied in order.

    `low_resolution` gives it the small output that unlearning and inversion use, fitted to the weights before `deltas`
    and cached; a file written by `apply` has other weights, so that another small output is fitted to it. Raises
    UsageError for an unknown name or a delta that does not fit.
    """
    return loaded(name, deltas, low_resolution=low_resolution, progress=progress)


def loaded(
    name: str | Path,
    deltas: Sequence[Path | Delta],
    *,
    low_resolution: bool,
    write: bool = True,
    progress: Progress = silent,
) -> Generator:
    """As `load_generator`; without `write` a small output that is not cached is fitted for this once."""
    generator: Generator = loading.load(str(name))
    if low_resolution:
        attach_small(generator, Config().ltu.resolution, write=write, progress=progress)
    for delta in deltas:
        apply_delta(generator, delta)
    return generator


def attach_small(generator: Generator, resolution: int, *, write: bool = True, progress: Progress = silent) -> None:
    """See to an output of `resolution` px, from the cache or fitted now; raises UsageError where there can be none."""
    if resolution not in generator.resolutions:
        small = cast(MobileStyleGAN, generator)
        attach_head(small, resolution, cache_dir=derived_folder(), write=write, progress=progress)


def derived_folder() -> Path:
    """Where what is computed from pinned weights is kept."""
    return assets.home() / "derived"
