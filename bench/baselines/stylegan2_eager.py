"""StyleGAN2's synthesis un-fused: a weight per image, grouped convolutions, zeros inserted before the FIR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.bench.baselines.epilogue import TAPS
from guide_fast.bench.baselines.grouped_conv import grouped_conv
from guide_fast.bench.baselines.zero_insertion import zero_insertion


def eager_synthesis(
    weights: Mapping[str, Tensor],  # of guide_fast's Synthesis, by its parameter and buffer names
    ws: Tensor,  # [N, L, D]
    *,
    architecture: str,
    clamp: float | None,
    noise: bool = True,
    half: int | None = None,
) -> Tensor:
    """Image [N, C, R, R]; NCHW, no in-place operation, one pass over memory for every operation.

    Blocks of `half` px or more compute in float16.
    """
    sizes = sorted({int(name.split(".")[0][1:]) for name in weights})
    x, first = torch.empty(0), 0
    image: Tensor | None = None
    for size in sizes:
        block = part(weights, f"b{size}.")
        count = 1 if "const" in block else 2
        options: dict[str, Any] = {"noise": noise, "clamp": clamp, "half": half is not None and size >= half}
        with_image = architecture == "skip" or size == sizes[-1]
        x, image = eager_block(block, x, image, ws[:, first : first + count + 1], with_image=with_image, **options)
        first += count
    assert image is not None
    return image


def eager_block(
    block: Mapping[str, Tensor],  # parameters and buffers of one Block
    x: Tensor,  # [N, I, H, W]; not read by the block with the constant
    image: Tensor | None,  # [N, C, H, W], of what came before
    ws: Tensor,  # [N, 2 or 3, D]
    *,
    noise: bool,
    clamp: float | None,
    up: int = 2,
    half: bool = False,
    with_image: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Features [N, O, up * H, up * W] with the image of that size in float32; `half` computes in float16."""
    gain, last = 1.0, ws.shape[1] - 2
    dtype = torch.float16 if half else block["conv1.weight"].dtype
    if "const" in block:
        x = block["const"][None].repeat(len(ws), 1, 1, 1).to(dtype)
    else:
        x, residual = x.to(dtype), None
        if "skip.weight" in block:
            gain = math.sqrt(0.5)
            residual = F.conv2d(x, block["skip.weight"].to(dtype) / math.sqrt(x.shape[1])) * gain
            residual = _upsampled(residual)
        x = _convolved(x, block, "conv0", ws[:, 0], up=up, noise=noise, gain=1.0, clamp=clamp)
    x = _convolved(x, block, "conv1", ws[:, last], up=1, noise=noise, gain=gain, clamp=clamp)
    if gain != 1:
        assert residual is not None
        x = residual + x
    if image is not None and up == 2:
        image = _upsampled(image)
    if with_image:
        rgb = _to_rgb(x, block, ws[:, last + 1])
        rgb = (rgb if clamp is None else rgb.clamp(-clamp, clamp)).to(block["conv1.weight"].dtype)
        image = rgb if image is None else image + rgb
    return x, image


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _convolved(
    x: Tensor,
    block: Mapping[str, Tensor],
    name: str,
    w: Tensor,
    *,
    up: int,
    noise: bool,
    gain: float,
    clamp: float | None,
) -> Tensor:
    added = (block[f"{name}.noise_const"] * block[f"{name}.noise_strength"])[None, None].to(x.dtype) if noise else None
    style, bias = _style(block, name, w), block[f"{name}.bias"].to(x.dtype)
    weight = block[f"{name}.weight"]
    if x.dtype == torch.float16:  # sums of squares stay finite; the demodulation takes both factors out again
        weight = weight / (math.sqrt(weight[0].numel()) * weight.abs().amax(dim=(1, 2, 3), keepdim=True))
        style = style / style.abs().amax(dim=1, keepdim=True)
    y = grouped_conv(x, weight.to(x.dtype), style.to(x.dtype), added, bias, up=up, demodulate=True, lrelu=True)
    y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def _to_rgb(x: Tensor, block: Mapping[str, Tensor], w: Tensor) -> Tensor:
    style = (_style(block, "torgb", w) / math.sqrt(x.shape[1])).to(x.dtype)
    weight, bias = block["torgb.weight"].to(x.dtype), block["torgb.bias"].to(x.dtype)
    return grouped_conv(x, weight, style, None, bias, up=1, demodulate=False, lrelu=False)


def _style(block: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    weight, bias = block[f"{name}.modulation.weight"], block[f"{name}.modulation.bias"]
    return F.linear(w, weight / math.sqrt(w.shape[1]), bias)


def _upsampled(x: Tensor) -> Tensor:
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / sum(TAPS)
    return zero_insertion(x, torch.outer(taps, taps), up=2, down=1, padding=(2, 1, 2, 1), gain=4.0)
