"""Second moments of everybody else in style space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guide_fast.models.generator import Generator

_CHUNK = 1024


@dataclass(frozen=True)
class Population:
    """What a modulation layer's input looks like over random people."""

    mean: Tensor  # [D]
    covariance: Tensor  # [D, D]

    def response(self, w_id: Tensor, *, ridge: float) -> Tensor:
        """Linear read-out that answers 1 to each row of `w_id` and as little as possible to random people.

        `w_id` [L, D] is relative to `mean`; returns [L, D]. It minimises E[(v . w)^2] + ridge * tr(C)/D * |v|^2 under
        v . w_id = 1, so v is proportional to (C + ridge * tr(C)/D * I)^-1 w_id. Without the ridge, v leans on
        directions in which people hardly vary, so a tiny change of the latent escapes it.
        """
        directions = torch.linalg.solve(self.regularised(ridge), w_id.double().T).T  # [L, D]
        return (directions / (directions * w_id.double()).sum(1, keepdim=True)).float()

    def whitening(self, *, ridge: float) -> Tensor:
        """Symmetric inverse square root of the regularised covariance, [D, D]."""
        values, vectors = torch.linalg.eigh(self.regularised(ridge))
        return ((vectors * values.rsqrt()) @ vectors.T).float()

    def regularised(self, ridge: float) -> Tensor:
        """C + ridge * tr(C)/D * I in double precision."""
        covariance = self.covariance.double()
        size = len(covariance)
        return covariance + ridge * covariance.trace() / size * torch.eye(size).to(covariance)


@torch.no_grad()
def sample_population(
    generator: Generator,
    *,
    samples: int,
    random: torch.Generator,
) -> Population:
    """Moments of the first style slot over `samples` mapped latents; `mean` is the generator's own `w_mean`."""
    mean = generator.w_mean.detach().float()
    total = torch.zeros(generator.w_dim, generator.w_dim, dtype=torch.float64, device=mean.device)
    for start in range(0, samples, _CHUNK):
        z = torch.randn(min(_CHUNK, samples - start), generator.z_dim, generator=random).to(mean.device)
        centred = generator.mapping(z)[:, 0] - mean
        total += (centred.T @ centred).double()
    return Population(mean, (total / samples).float())
