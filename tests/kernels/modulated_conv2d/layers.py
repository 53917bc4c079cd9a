"""Shapes of modulated convolutions, their settings, random inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import contract
import torch
from torch import Tensor

from guide_fast.kernels import modulated_conv2d


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


SETTINGS = {
    "layer": {},
    "rgb": {"demodulate": False, "activation": "linear", "clamp": 1.5},
    "premodulated": {"premodulated": True, "gain": 0.7, "clamp": 0.5},
}


def layer(impl: str, shape: Shape, **settings: object) -> Callable[..., Tensor]:
    """The operation on (x, weight, style, noise, bias)."""

    def call(x: Tensor, weight: Tensor, style: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, style, noise=noise, bias=bias, up=shape.up, impl=impl, **settings)

    return call


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


def _clamp_between(y: Tensor, near: float) -> float:
    """A clamp near `near` that no element of y is close to: a rounded output must not cross the kink."""
    sizes = y.detach().double().abs().flatten()
    sizes = torch.cat([sizes[(sizes > 0.7 * near) & (sizes < 1.3 * near)], sizes.new_tensor([0.7 * near, 1.3 * near])])
    sizes = sizes.sort().values
    widest = sizes.diff().argmax()
    return ((sizes[widest] + sizes[widest + 1]) / 2).item()


def clear(settings: dict, shape: Shape, tensors: list[Tensor]) -> dict:
    """The settings with their clamp where no output is close to it."""
    if "clamp" not in settings:
        return settings
    y = layer("reference", shape, **settings | {"clamp": None})(*(t.double() for t in tensors))
    return settings | {"clamp": _clamp_between(y, settings["clamp"])}
