"""StyleGAN2's synthesis un-fused: a weight per image, grouped convolutions, zeros inserted before the FIR."""

from __future__ import annotations

import math
from collections.abc import Mapping

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
) -> Tensor:
    """Image [N, C, R, R]; NCHW, no in-place operation, one pass over memory for every operation."""
    sizes = sorted({int(name.split(".")[0][1:]) for name in weights})
    x, first = torch.empty(0), 0
    image: Tensor | None = None
    residual: Tensor | None = None
    for size in sizes:
        block = {
            name.removeprefix(f"b{size}."): value for name, value in weights.items() if name.startswith(f"b{size}.")
        }
        gain, residual = 1.0, None
        if "const" in block:
            x = block["const"][None].repeat(len(ws), 1, 1, 1)
        else:
            if "skip.weight" in block:
                gain = math.sqrt(0.5)
                residual = F.conv2d(x, block["skip.weight"] / math.sqrt(x.shape[1])) * gain
                residual = _upsampled(residual)
            x = _convolved(x, block, "conv0", ws[:, first], up=2, noise=noise, gain=1.0, clamp=clamp)
            first += 1
        x = _convolved(x, block, "conv1", ws[:, first], up=1, noise=noise, gain=gain, clamp=clamp)
        first += 1
        if residual is not None:
            x = residual + x
        if image is not None:
            image = _upsampled(image)
        if architecture == "skip" or size == sizes[-1]:
            rgb = _to_rgb(x, block, ws[:, first])
            rgb = rgb if clamp is None else rgb.clamp(-clamp, clamp)
            image = rgb if image is None else image + rgb
    assert image is not None
    return image


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
    added = (block[f"{name}.noise_const"] * block[f"{name}.noise_strength"])[None, None] if noise else None
    style = _style(block, name, w)
    bias = block[f"{name}.bias"]
    y = grouped_conv(x, block[f"{name}.weight"], style, added, bias, up=up, demodulate=True, lrelu=True)
    y = y if gain == 1 else y * gain
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def _to_rgb(x: Tensor, block: Mapping[str, Tensor], w: Tensor) -> Tensor:
    style = _style(block, "torgb", w) / math.sqrt(x.shape[1])
    return grouped_conv(x, block["torgb.weight"], style, None, block["torgb.bias"], up=1, demodulate=False, lrelu=False)


def _style(block: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    weight, bias = block[f"{name}.modulation.weight"], block[f"{name}.modulation.bias"]
    return F.linear(w, weight / math.sqrt(w.shape[1]), bias)


def _upsampled(x: Tensor) -> Tensor:
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / sum(TAPS)
    return zero_insertion(x, torch.outer(taps, taps), up=2, down=1, padding=(2, 1, 2, 1), gain=4.0)
