"""Named layers of separable_conv2d that more than one test file runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import contract
import torch
from torch import Tensor

from guide_fast.kernels import separable_conv2d

# N, I, O, H, W; which optional tensors; settings
CASES: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
    "one": ((1, 1, 1, 1, 1), "depthwise", {}),
    "odd": ((2, 5, 7, 3, 6), "depthwise noise bias", {"gain": 1.5}),
    "wide": ((1, 34, 18, 5, 4), "depthwise noises bias", {"clamp": 1.0}),
    "pointwise alone": ((2, 9, 12, 4, 5), "bias", {"activation": "linear"}),
    "wavelet": ((1, 3, 4, 6, 4), "haar depthwise noise bias", {}),
    "wavelet of one channel": ((2, 1, 3, 2, 2), "haar depthwise", {"clamp": 0.75}),
}
NAMES = ("x", "pointwise", "style", "depthwise", "haar_style", "noise", "bias")


def tensors(case: tuple, dtype: torch.dtype, *, nhwc: bool) -> dict[str, Tensor]:
    """The inputs of a case by name, exact in every dtype, away from the kink of the activation."""
    (n, i, o, h, w), has, _ = case
    random = torch.Generator().manual_seed(5)

    def draw(*shape: int, offset: float = 0.0) -> Tensor:
        numbers = contract.on_a_grid(torch.randn(shape, generator=random), offset=offset)
        return numbers.to(contract.DEVICE, dtype)

    haar = "haar" in has
    x = draw(n, 4 * i, h // 2, w // 2) if haar else draw(n, i, h, w)
    found = {"x": x.contiguous(memory_format=torch.channels_last) if nhwc else x}
    found |= {"pointwise": draw(o, i, 1, 1), "style": draw(n, i)}
    found |= {"haar_style": draw(n, 4 * i)} if haar else {}
    found |= {"depthwise": draw(i, 1, 3, 3)} if "depthwise" in has else {}
    found |= {"noise": draw(n if "noises" in has else 1, 1, h, w)} if "noise" in has else {}
    # products of multiples of 1/8 miss the odd multiples of this
    return found | ({"bias": draw(o, offset=2.0**-13 if dtype == torch.float64 else 0.0)} if "bias" in has else {})


def called(
    names: list[str], impl: str, settings: dict[str, Any], constants: dict[str, Tensor]
) -> Callable[..., Tensor]:
    """separable_conv2d as a function of the named tensors alone."""

    def function(*leaves: Tensor) -> Tensor:
        given = {name: t.to(leaves[0].dtype) for name, t in constants.items()}
        given |= dict(zip(names, leaves, strict=True))
        x, depthwise, pointwise, style = (given.pop(name, None) for name in ("x", "depthwise", "pointwise", "style"))
        return separable_conv2d(x, depthwise, pointwise, style, **given, **settings, impl=impl)

    return function
