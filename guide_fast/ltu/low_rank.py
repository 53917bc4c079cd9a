"""Updates of low rank: W + B A in place of a weight that moves as a whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from guide_fast.randomness import stream


class LowRank(nn.Module):
    """W + (B A) in W's shape; B [O, r] starts at zero, A [r, I] at random, so that nothing moves at first.

    A's entries have a variance of 1/r, which makes an entry of B A move about as far in a step of Adam as an entry of
    W would.
    """

    def __init__(self, weight: Tensor, rank: int, random: torch.Generator) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        a = torch.randn(rank, columns, generator=random) / rank**0.5
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The moved weight."""
        return weight + (self.b @ self.a).view(weight.shape)


def make_low_rank(
    owner: nn.Module,
    name: str,  # of the tensor in `owner`
    *,
    rank: int,
    seed: int,
    full_name: str,
) -> dict[str, nn.Parameter]:
    """Let `owner`'s tensor move by an update of `rank` alone; returns what then trains, by full name.

    A tensor that is no matrix, or whose rank is no greater, moves as a whole.
    """
    weight: nn.Parameter = getattr(owner, name)
    if weight.ndim < 2 or rank >= min(len(weight), weight[0].numel()):
        return {full_name: weight}
    update = LowRank(weight.detach(), rank, stream(f"low rank {full_name}", seed))
    weight.requires_grad_(False)
    parametrize.register_parametrization(owner, name, update)
    return {f"{full_name}.a": update.a, f"{full_name}.b": update.b}


def merge_low_rank(module: nn.Module) -> None:
    """Undo every `make_low_rank` in `module`: plain tensors again, with the update folded in."""
    for owner in list(module.modules()):
        if parametrize.is_parametrized(owner):
            for name in list(owner.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(owner, name, leave_parametrized=True)
