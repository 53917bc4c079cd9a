"""Latents of people to be kept, with what the teacher makes of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from guide_fast.artifacts import read_safetensors, weights_sha256, write_safetensors
from guide_fast.errors import GuideFastError
from guide_fast.ltu.terms import Networks, Views, observe
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream

_KIND = "preservation bank"


@dataclass(frozen=True)
class Bank:
    """Preservation latents; the teacher's features are computed once and reused by every request."""

    ws: Tensor  # [B, L, D]
    views: Views  # of the teacher's images

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
    """`size` random people of the teacher, from the cache or rendered now (one image at a time, no graph)."""
    z = torch.randn(size, teacher.z_dim, generator=stream(_KIND, seed))
    with torch.no_grad():
        ws = teacher.mapping(z)
    base = weights_sha256(teacher)
    drawn = hashlib.sha256(z.numpy().tobytes()).hexdigest()
    header = {
        "z_sha256": drawn,
        "base_sha256": base,
        "seed": seed,
        "size": size,
        "resolution": resolution,
        "networks": networks.names,
    }
    path = cache_dir / f"bank-{resolution}-{size}-{drawn[:8]}-{base[:16]}.safetensors" if cache_dir else None
    if path is not None and path.is_file():
        tensors, found = read_safetensors(path, _KIND)
        if found != header:
            raise GuideFastError(f"{path} was made with other settings; delete it and run again")
        return Bank(ws, Views.from_tensors(tensors))
    parts = []
    progress(_KIND, 0, size, {})
    for i in range(size):
        with torch.no_grad():
            rendering = teacher.synthesis(ws[i : i + 1], resolution=resolution)
            parts.append(observe(rendering, networks, keep_features=False))
        progress(_KIND, i + 1, size, {})
    views = Views.concatenate(parts)
    if path is not None:
        write_safetensors(path, views.to_tensors(), _KIND, header)
    return Bank(ws, views)
