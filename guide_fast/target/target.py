"""Choice of the latent that takes the forgotten person's place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guide_fast.artifacts import Target
from guide_fast.config import TargetConfig
from guide_fast.errors import RefusedError
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream

_STAGE = "choosing the target"


@torch.no_grad()
def choose_target(
    generator: Generator,
    w_u: Tensor,  # [L, D]
    *,
    identity: IdentityNetwork,
    config: TargetConfig,
    resolution: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Target:
    """Target latent [L, D], far enough from the person's identity.

    "ufo": w_mean - d * w_id / |w_id| (GUIDE, section 3); "mean": w_mean; "surrogate": w_mean + d * (sin(turn) *
    x / |x| - cos(turn) * w_id / |w_id|), x the part of a random person's latent orthogonal to w_id. All norms are per
    style slot; over the flattened [L, D] tensor of equal rows that is the paper's d / sqrt(L).

    A surrogate exists because a layer linear in w that sends w_id to -a * w_id sends -w_id / a back to w_id: under a
    closed-form edit the person of a UFO target is reproduced exactly at the opposite latent. Of all candidates the one
    that the identity network finds least similar to the person is taken.

    Candidates whose rendering the identity network finds closer than `max_similarity` are pushed: d grows by `push`.
    Raises RefusedError when that does not help.
    """
    mean = generator.w_mean
    w_id = w_u - mean
    source = identity.embed(generator.synthesis(w_u[None], resolution=resolution).framed)
    d, nearest = config.d, float("inf")
    for pushes in range(config.max_pushes + 1):
        candidates = _candidates(generator, w_id, config, d, seed)
        similarities: list[float] = []
        progress(_STAGE, 0, len(candidates), {"d": d})
        for w in candidates:
            rendering = generator.synthesis(w[None], resolution=resolution)
            similarities.append(identity.similarity(identity.embed(rendering.framed), source).item())
            progress(_STAGE, len(similarities), len(candidates), {"d": d, "similarity": min(similarities)})
        best = min(range(len(candidates)), key=similarities.__getitem__)
        nearest = min(nearest, similarities[best])
        if similarities[best] <= config.max_similarity:
            return Target(candidates[best], config.kind, d, pushes, similarities[best])
        if config.kind == "mean":
            break  # there is only one mean
        d *= config.push
    # only surrogates are drawn: for the other kinds another seed changes nothing
    other = "another --run-seed" if config.kind == "surrogate" else "--target surrogate"
    raise RefusedError(
        f"the {config.kind} target resembles the person ({nearest:.2f}, allowed {config.max_similarity:.2f}); "
        f"use {other}, or raise target.max_similarity"
    )


def _candidates(generator: Generator, w_id: Tensor, config: TargetConfig, d: float, seed: int) -> list[Tensor]:
    mean = generator.w_mean
    unit = torch.nn.functional.normalize(w_id, dim=1)
    if config.kind == "mean":
        return [mean.expand_as(w_id).clone()]
    if config.kind == "ufo":
        return [mean - d * unit]
    z = torch.randn(config.candidates, generator.z_dim, generator=stream("surrogates", seed))
    others = generator.mapping(z.to(mean.device)) - mean
    orthogonal = others - (others * unit).sum(2, keepdim=True) * unit
    turn = math.radians(config.turn)
    direction = math.sin(turn) * torch.nn.functional.normalize(orthogonal, dim=2) - math.cos(turn) * unit
    return list(mean + d * direction)
