"""Settings of every stage, with the paper's constants as defaults."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from guide_fast.errors import UsageError

# The paper gives lengths in a flattened [14, 512] tensor with equal rows; one row carries 1/sqrt(14) of them.
PAPER_SLOTS = 14
UFO_D = 30 / math.sqrt(PAPER_SLOTS)  # per slot: 8.02
ADJACENCY_RADIUS = 15 / math.sqrt(PAPER_SLOTS)  # per slot: 4.01

ENVIRONMENT_PREFIX = "GUIDE_FAST_"


@dataclass(frozen=True)
class AlignConfig:
    """Which photos are good enough, lengths in pixels of the photo, angles in degrees."""

    min_image_px: int = 64
    max_image_px: int = 12_000
    min_face_px: int = 80  # side of the detected box
    min_score: float = 0.9
    min_sharpness: float = 12.0  # variance of the Laplacian of the aligned face at 256 px, 0..255 grey
    max_yaw: float = 45.0
    max_roll: float = 60.0


@dataclass(frozen=True)
class InvertConfig:
    """Photo to W+; the loss terms are identity, perceptual distance, pixels and a latent prior."""

    samples: int = 256  # starting points tried
    steps_w: int = 60
    steps_w_plus: int = 100
    lr: float = 0.05
    identity: float = 1.0
    perceptual: float = 1.0
    pixel: float = 0.2
    prior: float = 0.02
    patience: int = 25  # steps without improvement before stopping early
    resolution: int = 256
    min_similarity: float = 0.5  # judge's similarity of the inversion to the photo; below it the run refuses


@dataclass(frozen=True)
class TargetConfig:
    """Where the forgotten identity is sent; `d` is a length per style slot."""

    kind: str = "ufo"  # "ufo" or "mean"
    d: float = UFO_D
    max_similarity: float = 0.5  # judge's similarity of target to source; above it the target is pushed
    max_pushes: int = 4  # each push lengthens d by `push`
    push: float = 1.25


@dataclass(frozen=True)
class LtuConfig:
    """Latent target unlearning; weights of the loss terms are the paper's unless the comment says otherwise."""

    steps: int = 60
    lr: float = 1e-4
    n_adjacent: int = 2
    n_global: int = 2
    radius: float = ADJACENCY_RADIUS
    feature: float = 1e-2
    perceptual: float = 1.0
    identity: float = 0.1
    preservation: float = 1.0
    layers: str = "auto"  # all, coarse, fine, auto, or comma-separated name patterns
    resolution: int = 256
    seed: int = 0


@dataclass(frozen=True)
class EvaluateConfig:
    """Sample sizes of the metrics; every image is rendered at the generator's full resolution."""

    neighbours: int = 8
    radius: float = ADJACENCY_RADIUS
    bystanders: int = 64
    stranger_pairs: int = 200
    fd_images: int = 256
    batch: int = 4
    seed: int = 20_240_613  # never the seed of the training latents


@dataclass(frozen=True)
class Config:
    """All stages together."""

    align: AlignConfig = field(default_factory=AlignConfig)
    invert: InvertConfig = field(default_factory=InvertConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    ltu: LtuConfig = field(default_factory=LtuConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as written to `config.json` and `--config` files."""
        return dataclasses.asdict(self)
