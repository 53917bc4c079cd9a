"""rosinality's StyleGAN2 checkpoints under the names, at the scales of the StyleGAN2-ADA repository.

Both compute the same network from other numbers. A styled convolution there multiplies its weight by 1 / sqrt(in * 9)
before it demodulates with 1e-8 under the root; the other does not multiply. Multiplying once, here, gives the same
quotient, the 1e-8 included. Colour layers divide at run time in both, full layers likewise. Blur kernels there carry
the factor 4 of zero insertion. (Shapes and formulas: https://github.com/rosinality/stylegan2-pytorch, model.py.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from guide_fast.errors import IntegrityError, RefusedError
from guide_fast.models.published._state_dict import state_dict_config
from guide_fast.models.published._stylegan2 import FILTER, block_resolutions

Sizes = Mapping[str, tuple[int, ...]]
# constants of the published constructor, which the file does not repeat
_UNSEEN = {"num_fp16_res": 0, "conv_clamp": None, "mapping": {"lr_multiplier": 0.01}}
_MOST_LAYERS = 64
_UPSAMPLING = 4  # a blur kernel's sum after zero insertion


def is_rosinality(names: Mapping[str, Any]) -> bool:
    """Whether the names are those of rosinality's generator."""
    return "style.1.weight" in names and "input.input" in names and "conv1.conv.weight" in names


def rosinality_config(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """Settings of `converted` tensors, the constants of rosinality's constructor filled in."""
    return state_dict_config({key: tuple(value.shape) for key, value in tensors.items()}, _UNSEEN, name)


def converted(tensors: Mapping[str, Tensor], w_avg: Tensor | None) -> dict[str, Tensor]:
    """The same generator under StyleGAN2-ADA's names; raises IntegrityError naming what is missing or left over."""
    if w_avg is None:
        raise IntegrityError(
            "the file has no latent_avg, the mean latent; add it as the mean of 4,096 mapping outputs, under that key"
        )
    left = dict(tensors)

    def take(name: str, dimensions: int) -> Tensor:
        value = left.pop(name, None)
        if value is None or value.dim() != dimensions or value.numel() == 0 or not value.is_floating_point():
            raise IntegrityError(f"the checkpoint lacks {name} or it has the wrong shape; get the file again")
        return value.float()

    found = {"mapping.w_avg": w_avg.float().reshape(-1)}
    count = next(i for i in range(_MOST_LAYERS + 1) if f"style.{i + 1}.weight" not in tensors or i == _MOST_LAYERS)
    for i in range(count):
        found[f"mapping.fc{i}.weight"] = take(f"style.{i + 1}.weight", 2)
        found[f"mapping.fc{i}.bias"] = take(f"style.{i + 1}.bias", 1)
    found["synthesis.b4.const"] = take("input.input", 4)[0]
    _layer(found, take, "conv1", "synthesis.b4.conv1", noise=0)
    _to_rgb(found, take, "to_rgb1", "synthesis.b4.torgb")
    levels = sum(f"to_rgbs.{i}.conv.weight" in tensors for i in range(8))
    for i, resolution in enumerate(block_resolutions(4 << levels)[1:]):
        block = f"synthesis.b{resolution}"
        _check_blur(take(f"convs.{2 * i}.conv.blur.kernel", 2), f"convs.{2 * i}.conv.blur.kernel")
        _check_blur(take(f"to_rgbs.{i}.upsample.kernel", 2), f"to_rgbs.{i}.upsample.kernel")
        _layer(found, take, f"convs.{2 * i}", f"{block}.conv0", noise=2 * i + 1)
        _layer(found, take, f"convs.{2 * i + 1}", f"{block}.conv1", noise=2 * i + 2)
        _to_rgb(found, take, f"to_rgbs.{i}", f"{block}.torgb")
    for resolution in block_resolutions(4 << levels):
        block = f"synthesis.b{resolution}"
        for place in (block, f"{block}.conv0", f"{block}.conv1"):
            if place == block or f"{place}.weight" in found:
                found[f"{place}.resample_filter"] = _filter()
    if left:
        raise IntegrityError(
            f"the checkpoint holds {sorted(left)[0][:120]!r}, which rosinality's generator does not have"
        )
    return found


def _layer(
    found: dict[str, Tensor], take: Callable[[str, int], Tensor], source: str, target: str, *, noise: int
) -> None:
    weight = take(f"{source}.conv.weight", 5)[0]  # [O, I, 3, 3]
    found[f"{target}.weight"] = weight * (1 / math.sqrt(weight[0].numel()))
    found[f"{target}.bias"] = take(f"{source}.activate.bias", 1)
    found[f"{target}.affine.weight"] = take(f"{source}.conv.modulation.weight", 2)
    found[f"{target}.affine.bias"] = take(f"{source}.conv.modulation.bias", 1)
    found[f"{target}.noise_strength"] = take(f"{source}.noise.weight", 1)[0]
    found[f"{target}.noise_const"] = take(f"noises.noise_{noise}", 4)[0, 0]


def _to_rgb(found: dict[str, Tensor], take: Callable[[str, int], Tensor], source: str, target: str) -> None:
    found[f"{target}.weight"] = take(f"{source}.conv.weight", 5)[0]  # [3, I, 1, 1]
    found[f"{target}.bias"] = take(f"{source}.bias", 4)[0, :, 0, 0]
    found[f"{target}.affine.weight"] = take(f"{source}.conv.modulation.weight", 2)
    found[f"{target}.affine.bias"] = take(f"{source}.conv.modulation.bias", 1)


def _filter() -> Tensor:
    taps = torch.tensor(FILTER, dtype=torch.float32)
    return torch.outer(taps, taps) / 64


def _check_blur(kernel: Tensor, name: str) -> None:
    if kernel.shape != (4, 4) or not torch.allclose(kernel, _filter() * _UPSAMPLING, atol=1e-6):
        raise RefusedError(f"{name} is not the published blur {FILTER}; guide-fast runs no other")
