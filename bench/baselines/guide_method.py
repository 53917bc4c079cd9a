"""GUIDE's method as published, shared by both baselines: constants, target, what a step draws.

Written from the description of arXiv 2405.09879 with the constants of the authors' configuration; lengths are given
per style slot, so that a latent of other than 14 slots is treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_fast.config import ADJACENCY_RADIUS, UFO_D
from guide_fast.models.generator import Generator
from guide_fast.randomness import stream


@dataclass(frozen=True)
class Method:
    """Constants of the loop; `resolution` None is the generator's own."""

    steps: int = 1000
    lr: float = 1e-4
    n_adjacent: int = 2
    n_global: int = 2
    d: float = UFO_D
    radius: float = ADJACENCY_RADIUS
    feature: float = 1e-2
    perceptual: float = 1.0
    identity: float = 0.1
    resolution: int | None = None
    perceptual_size: int | None = 256  # px; the published loop looks at the whole image, which costs it more


@dataclass(frozen=True)
class Draw:
    """What one step draws; equal for both baselines."""

    offsets: Tensor  # [A, L, D], from the person, from the target alike
    others: Tensor  # [G, L, D]
    camera: Tensor | None  # [1, C], of 3D generators


@torch.no_grad()
def draw(generator: Generator, w_u: Tensor, method: Method, seed: int, index: int) -> Draw:
    """Step `index` of seed `seed`: D = a (w_r - w_u) / |w_r - w_u| with a ~ U(0, radius), w_r = mapping(z)."""
    random = stream("guide step", seed, index)
    z = torch.randn(method.n_adjacent + method.n_global, generator.z_dim, generator=random)
    lengths = method.radius * torch.rand(method.n_adjacent, generator=random)
    cameras = generator.cameras
    camera = None if cameras is None else cameras.draw(random)
    ws = generator.mapping(z.to(w_u))
    directions = ws[: method.n_adjacent] - w_u
    norms = directions.flatten(1).norm(dim=1) / math.sqrt(generator.num_ws)
    offsets = directions * (lengths.to(w_u) / norms)[:, None, None]
    return Draw(offsets, ws[method.n_adjacent :], None if camera is None else camera.to(w_u))


def ufo_target(generator: Generator, w_u: Tensor, d: float) -> Tensor:
    """w_mean - d * w_id / |w_id|, the norm over the flattened [L, D] tensor, d per slot: [L, D]."""
    w_id = w_u - generator.w_mean
    return generator.w_mean - d * math.sqrt(generator.num_ws) * w_id / w_id.norm()


def as_reference(generator: Any) -> Any:
    """`generator` itself, from now on through plain PyTorch alone."""
    if hasattr(generator, "impl"):
        generator.impl = "reference"
    return generator


def train_all_layers(generator: Any) -> list[torch.nn.Parameter]:
    """The parameters of all synthesis layers, which the paper trains; they require gradients from now on."""
    generator.requires_grad_(False)
    parameters = [p for layer in generator.layers for p in generator.layer_parameters(layer).values()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
