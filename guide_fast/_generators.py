"""Generators as a run needs them: with earlier deltas, with a small output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from guide_fast import assets
from guide_fast.artifacts import Delta
from guide_fast.config import Config
from guide_fast.deltas import apply_delta
from guide_fast.errors import UsageError
from guide_fast.models import loading
from guide_fast.models.generator import Generator
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.stylegan2 import StyleGAN2
from guide_fast.progress import Progress, silent

DEFAULT_GENERATOR = loading.GENERATORS[0]


def load_generator(
    name: str | Path = DEFAULT_GENERATOR,
    *,
    deltas: Sequence[Path | Delta] = (),
    low_resolution: bool = True,
    label: int | None = None,
    progress: Progress = silent,
) -> Generator:
    """A generator by name or from a file, with `deltas` applied in order.

    `low_resolution` gives it the small output that unlearning and inversion use, fitted to the weights before `deltas`
    and cached; a file written by `apply` has other weights, so that another small output is fitted to it. A
    class-conditional generator makes people of the class `label`. Raises UsageError for an unknown name, a delta that
    does not fit, a label that the generator does not have.
    """
    return loaded(name, deltas, low_resolution=low_resolution, label=label, progress=progress)


def loaded(
    name: str | Path,
    deltas: Sequence[Path | Delta],
    *,
    low_resolution: bool,
    label: int | None = None,
    write: bool = True,
    progress: Progress = silent,
) -> Generator:
    """As `load_generator`; without `write` a small output that is not cached is fitted for this once."""
    generator: Generator = loading.load(str(name))
    if label is not None:
        choose_label(generator, label)
    if low_resolution and isinstance(generator, MobileStyleGAN):
        attach_small(generator, Config().ltu.resolution, write=write, progress=progress)
    for delta in deltas:
        apply_delta(generator, delta)
    return generator


def attach_small(generator: Generator, resolution: int, *, write: bool = True, progress: Progress = silent) -> None:
    """See to an output of `resolution` px, from the cache or fitted now; raises UsageError where there can be none."""
    if resolution in generator.resolutions:
        return
    if not isinstance(generator, MobileStyleGAN):
        known = ", ".join(map(str, generator.resolutions))
        raise UsageError(
            f"{generator.name} has no {resolution} px output to take steps at; set ltu.resolution to one of {known}"
        )
    attach_head(generator, resolution, cache_dir=derived_folder(), write=write, progress=progress)


def choose_label(generator: Generator, label: int) -> None:
    """Make a class-conditional generator map z with one class; raises UsageError where there is no such class."""
    count = getattr(generator, "c_dim", 0)
    if not isinstance(generator, StyleGAN2) or not count:
        raise UsageError(f"{generator.name} takes no label; leave label = {label} out")
    if not 0 <= label < count:
        raise UsageError(f"label {label} is none of {generator.name}; give a whole number from 0 to {count - 1}")
    generator.label = torch.nn.functional.one_hot(torch.tensor(label), count).float()


def derived_folder() -> Path:
    """Where what is computed from pinned weights is kept."""
    return assets.home() / "derived"
