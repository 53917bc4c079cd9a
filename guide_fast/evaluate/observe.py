"""Rendering of latents in batches, kept as what frozen networks see."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from guide_fast.evaluate.thumbnails import shrink
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress

Network = IdentityNetwork | PerceptualNetwork


@dataclass(frozen=True)
class Observation:
    """What is kept of N images; the images themselves are not."""

    embeddings: dict[str, Tensor]  # role of the network -> fp32 [N, D] on the CPU
    thumbnails: Tensor  # uint8 [N, 3, S, S]


def observe(
    generator: Generator,
    ws: Tensor,  # [N, L, D]
    networks: Mapping[str, Network],
    *,
    camera: Tensor | None = None,  # [C], of 3D generators; None: their frontal one
    batch: int,
    thumbnail: int,
    tick: Callable[[], None],
) -> Observation:
    """Render at full resolution, clamped to [-1, 1], `batch` images at a time; `tick` is called once for each image.

    Every network may live on a device of its own. No gradients.
    """
    seen: dict[str, list[Tensor]] = {role: [] for role in networks}
    small = []
    with torch.inference_mode():
        for part in ws.split(batch):
            rendering = generator.synthesis(part, camera)
            images, framed = rendering.image.clamp(-1, 1), rendering.framed.clamp(-1, 1)
            for role, network in networks.items():
                device = next((parameter.device for parameter in network.parameters()), images.device)
                seen[role].append(network.embed(framed.to(device)).float().cpu())
            small.append(shrink(images, thumbnail))
            for _ in part:
                tick()
    return Observation({role: torch.cat(parts) for role, parts in seen.items()}, torch.cat(small))


def counter(progress: Progress, stage: str, total: int) -> Callable[[], None]:
    """A `tick` that reports to `progress` as `stage`, 0 of `total` at once."""
    done = itertools.count(1)
    progress(stage, 0, total, {})

    def tick() -> None:
        progress(stage, next(done), total, {})

    return tick
