"""Shapes of modulated convolutions, random inputs for them."""

from __future__ import annotations

from typing import NamedTuple

import contract
import torch
from torch import Tensor


class Shape(NamedTuple):
    """x [n, i, h, w], weight [o, i, k, k]."""

    n: int
    i: int
    o: int
    h: int
    w: int
    k: int
    up: int

    def __str__(self) -> str:
        return f"{self.n}x{self.i}x{self.h}x{self.w} to {self.o} k{self.k} up{self.up}"


SHAPES = {
    "one": Shape(1, 2, 1, 1, 1, 3, 1),
    "odd": Shape(2, 5, 7, 6, 3, 3, 1),
    "deep": Shape(1, 70, 18, 3, 5, 3, 1),
    "wide": Shape(1, 3, 2, 9, 17, 3, 1),
    "point": Shape(2, 20, 3, 5, 7, 1, 1),
    "up one": Shape(1, 2, 1, 1, 1, 3, 2),
    "up": Shape(2, 6, 5, 3, 4, 3, 2),
    "up point": Shape(2, 4, 3, 5, 2, 1, 2),
}


def inputs(shape: Shape, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """x, weight, style, noise, bias; the weight scaled so that the outputs are of size one."""
    random = torch.Generator().manual_seed(1)
    n, i, o, h, w, k, up = shape
    sizes = [(n, i, h, w), (o, i, k, k), (n, i), (n if i % 2 else 1, 1, up * h, up * w), (o,)]
    tensors = [torch.randn(size, generator=random) for size in sizes]
    tensors[1] /= (i * k * k) ** 0.5
    return [
        contract.on_a_grid(t, offset=1 / 16).to(device, dtype) if j != 1 else t.to(device, dtype)
        for j, t in enumerate(tensors)
    ]
