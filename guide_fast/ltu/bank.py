"""Latents of people to be kept, with what the teacher makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from guide_fast.artifacts import rendering_sha256, tensors_sha256, weights_sha256
from guide_fast.derived import derived
from guide_fast.ltu.terms import PERCEPTUAL_SIZE, Networks, Views, observe
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream

_KIND = "preservation bank"


@dataclass(frozen=True)
class Bank:
    """Preservation latents; the teacher's features are computed once and reused by every request.

    Under a camera that moves every step there is nothing to reuse: no views are taken then.
    """

    ws: Tensor  # [B, L, D]
    views: Views | None  # of the teacher's images; None for a generator with cameras

    def __len__(self) -> int:
        return len(self.ws)


def preservation_bank(
    teacher: Generator,
    networks: Networks,
    *,
    size: int,
    resolution: int,
    seed: int,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Bank:
    """`size` random people of the teacher, from the cache or rendered now (one image at a time, no graph).

    A generator with cameras is not rendered, since every step sees it from elsewhere.
    A cached bank belongs to the weights, the head for `resolution`, both networks, the people.
    """
    z = torch.randn(size, teacher.z_dim, generator=stream(_KIND, seed))
    device = teacher.w_mean.device
    with torch.no_grad():
        ws = teacher.mapping(z.to(device))
    if teacher.cameras is not None:
        return Bank(ws, None)

    def render() -> dict[str, Tensor]:
        parts = []
        progress(_KIND, 0, size, {})
        for i in range(size):
            with torch.no_grad():
                rendering = teacher.synthesis(ws[i : i + 1], resolution=resolution)
                parts.append(observe(rendering, networks, keep_features=False))
            progress(_KIND, i + 1, size, {})
        return {name: value.cpu() for name, value in Views.concatenate(parts).to_tensors().items()}

    key = {
        "z_sha256": tensors_sha256({"z": z}),
        "rendering_sha256": rendering_sha256(teacher, resolution),
        "seed": seed,
        "size": size,
        "resolution": resolution,
        "identity": [networks.identity.name, weights_sha256(networks.identity)],
        "perceptual": [networks.perceptual.name, weights_sha256(networks.perceptual)],
        "perceptual_size": PERCEPTUAL_SIZE,
    }
    tensors = derived(cache_dir, f"bank-{resolution}-{size}", _KIND, key, render)
    return Bank(ws, Views.from_tensors({name: value.to(device) for name, value in tensors.items()}))
