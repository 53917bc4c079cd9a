"""Small 8-bit pictures of renderings before forgetting with their counterparts after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

SMALL = 128  # px, neighbours and bystanders
LARGE = 256  # px, the person


@dataclass(frozen=True)
class Pair:
    """One latent as both generators render it."""

    kind: Literal["person", "neighbour", "bystander"]
    before: Tensor  # uint8 [3, S, S]
    after: Tensor  # uint8 [3, S, S]
    similarity: float  # the judge's, of `after` to `before`
    most_changed: bool = False  # the bystander that suffered most


def shrink(
    images: Tensor,  # [N, 3, R, R] in [-1, 1]
    size: int,
) -> Tensor:
    """Antialiased copies on the CPU, uint8 [N, 3, size, size]; values outside [-1, 1] are clamped."""
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return small.mul(127.5).add(128).clamp(0, 255).byte().cpu()


def choose(pairs: tuple[Pair, ...], *, neighbours: int = 4, bystanders: int = 6) -> tuple[Pair, ...]:
    """The person, the first neighbours, the first bystanders with the most changed one always among them.

    The choice depends on order alone, so it cannot flatter: the first few are not picked by their looks.
    """
    near = [pair for pair in pairs if pair.kind == "neighbour"][:neighbours]
    others = [pair for pair in pairs if pair.kind == "bystander"]
    shown = others[:bystanders]
    worst = next((pair for pair in others if pair.most_changed), None)
    if worst is not None and shown and not any(pair.most_changed for pair in shown):
        shown[-1] = worst
    return (*(pair for pair in pairs if pair.kind == "person"), *near, *shown)
