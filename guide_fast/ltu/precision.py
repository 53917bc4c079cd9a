"""Which parts may compute in float16: those whose activations stay far inside its range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = 65504.0  # float16
MARGIN = 16.0  # between the activations seen and the range: sums inside a layer, weights that move
LOSS_SCALE = 1024.0


def largest_activations(run: Callable[[], Any], parts: Mapping[str, nn.Module]) -> dict[str, float]:
    """Of each part: the largest absolute output of any layer in it while `run` runs; infinite where one is not finite.

    A part that does not run has 0. One read for all of them.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in parts}

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs = output if isinstance(output, (tuple, list)) else [output]
            seen[name] += [t.detach().abs().amax().float() for t in outputs if _measurable(t)]

        return look

    hooks = [layer.register_forward_hook(watch(name)) for name, part in parts.items() for layer in part.modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, values in seen.items() if values]
    largest = torch.stack([torch.stack(seen[name]).amax() for name in names]).tolist() if names else []
    found = dict.fromkeys(parts, 0.0) | dict(zip(names, largest, strict=True))
    return {name: value if value == value else float("inf") for name, value in found.items()}


def fitting(largest: Mapping[str, float]) -> frozenset[str]:
    """The parts that may compute in float16."""
    return frozenset(name for name, value in largest.items() if 0 < value <= LARGEST / MARGIN)


def half_blocks(generator: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a generator that can compute in float16, by name.

    EG3D's backbone was trained in float32 and stays there; a checkpoint's own blocks in half precision stay as well.
    """
    return {
        name: module
        for name, module in generator.named_modules()
        if getattr(module, "half_precision", None) is False and not name.startswith("backbone.")
    }


def set_half(generator: nn.Module, blocks: frozenset[str], *, half: bool) -> None:
    """Make the named blocks compute in float16, or in float32 again."""
    for name in blocks:
        generator.get_submodule(name).half_precision = half  # type: ignore[assignment]


def _measurable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
