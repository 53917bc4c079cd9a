"""Modulation layers parameterised so that a gradient step moves the forgotten person far more than anybody else."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.models.generator import Generator
from guide_fast.models.modulation import Modulation


class SelectiveModulation(nn.Module):
    """A modulation A w + b with a trainable shift P S (w - mean), S the whitening of the population.

    In plain coordinates a step of Adam along sign(g w^T) turns every input alike, because people share the directions
    in which styles vary most. After whitening, random people look orthogonal to the person, so the same step reaches
    them with a factor of about 1/sqrt(D). `merged()` folds the shift back into weight and bias. The shift has the
    unit of the weight times its equalised learning rate, so that one learning rate serves every generator.
    """

    def __init__(self, base: Modulation, whitening: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.base = base
        self.shift = nn.Parameter(torch.zeros_like(base.weight))  # P [C, D]
        self.register_buffer("whitening", whitening)  # [D, D]
        self.register_buffer("mean", mean)  # [D]
        self.whitening: Tensor
        self.mean: Tensor

    def forward(self, w: Tensor) -> Tensor:
        """[N, D] -> scales [N, C, 1, 1]."""
        moved = F.linear(F.linear(w - self.mean, self.whitening), self.shift)
        return self.base(w) + (moved * self.base.scale)[:, :, None, None]

    @torch.no_grad()
    def send(self, w_id: Tensor, response: Tensor, w_shift: Tensor) -> None:
        """Closed form: add the smallest shift by which `w_id` [D] acts like `w_id + w_shift` ([D]) on this layer.

        `response` [D] is `Population.response` of `w_id`. Source: least squares with one equality constraint, the
        local and the global term of latent target unlearning in this layer's output.
        """
        styles = self.base.linear(w_shift)  # [C]
        read_out = torch.linalg.solve(self.whitening.double(), response.double()).float()
        self.shift.add_(styles[:, None] * (read_out / (read_out @ (self.whitening @ w_id))))

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight [C, D] with bias [C] of the plain modulation that does the same."""
        shift = self.shift.double() @ self.whitening.double()
        bias = self.base.bias.double() - shift @ self.mean.double()
        return (self.base.weight.double() + shift / self.base.gain).float(), bias.float()


def make_selective(
    generator: Generator,
    layers: tuple[str, ...],
    whitening: Tensor,
    mean: Tensor,
) -> dict[str, SelectiveModulation]:
    """Replace the modulations among `layers` in place; returns layer name -> the new module."""
    replaced = {}
    for layer in layers:
        if layer.endswith(".modulation"):
            owner = generator.layer_module(layer)
            selective = SelectiveModulation(cast(Modulation, owner.modulation), whitening, mean)
            owner.modulation = selective
            replaced[layer] = selective
    return replaced


def merge_selective(generator: nn.Module) -> None:
    """Undo `make_selective`: plain modulations again, with the shift folded in."""
    for owner in list(generator.modules()):
        selective = getattr(owner, "modulation", None)
        if isinstance(selective, SelectiveModulation):
            weight, bias = selective.merged()
            selective.base.weight.data.copy_(weight)
            selective.base.bias.data.copy_(bias)
            owner.modulation = selective.base
