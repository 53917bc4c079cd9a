"""StyleGAN2's image at 256 px, at 1024 px, in the precision of the published checkpoints, with random weights.

256 px has channel_base 16384 (the published configuration "paper256"), 1024 px has 32768; both compute their last four
resolutions in float16 with a clamp at 256, the others in float32 whose products round to tf32, as where a user sets
`torch.backends.cuda.matmul.allow_tf32`. Constant noise; from style vectors on: the mapping network is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from guide_fast.bench.baselines.stylegan2_eager import eager_synthesis
from guide_fast.bench.case import Case, Problem, generator
from guide_fast.bench.generators.whole_image import (
    case,
    images_per_second,
    kernels_of,
    operations,
    problem,
    random_weights,
)
from guide_fast.bench.goals import Goal
from guide_fast.bench.kernels.bench_modulated_conv2d import stylegan2
from guide_fast.models.stylegan2 import StyleGAN2

OP = "stylegan2_image"
CLAMP, HALF_BLOCKS = 256.0, 4
CHANNEL_BASE = {16: 256, 256: 16384, 1024: 32768}  # by resolution; 16 px is the smoke run's

GOALS = (
    Goal("256 px (channel_base 16384): at least 5000 images/s, batch 8", 5000.0, images_per_second(256, 8)),
    Goal("256 px (channel_base 16384): at least 5000 images/s, batch 32", 5000.0, images_per_second(256, 32)),
    Goal("1024 px (channel_base 32768): at least 2500 images/s, batch 8", 2500.0, images_per_second(1024, 8)),
)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """The goals' sizes first, then single images."""
    for size, batch in ((16, 2),) if smoke else ((256, 8), (1024, 8), (256, 32), (256, 1), (1024, 1)):
        yield _case(size, batch)


def half_from(size: int) -> int:
    """px of the first block in float16."""
    return max(size >> (HALF_BLOCKS - 1), 8)


def config(size: int) -> dict[str, Any]:
    """As the door for published files makes it."""
    return {
        "family": "stylegan2",
        "name": f"stylegan2-{size}",
        "z_dim": 512,
        "c_dim": 0,
        "w_dim": 512,
        "img_resolution": size,
        "img_channels": 3,
        "channel_base": CHANNEL_BASE[size],
        "channel_max": 512,
        "num_fp16_res": min(HALF_BLOCKS, size.bit_length() - 3),
        "conv_clamp": CLAMP,
        "architecture": "skip",
        "mapping": {"num_layers": 8, "lr_multiplier": 0.01},
    }


def _case(size: int, batch: int) -> Case:
    layers = list(stylegan2(size, channel_base=CHANNEL_BASE[size]))
    half = [layer for layer in layers if layer.size * layer.up >= half_from(size)]
    full = [layer for layer in layers if layer not in half]
    shape: dict[str, int | str] = {"batch": batch, "size": size}
    shape |= {"channel_base": CHANNEL_BASE[size], "float16": f"from {half_from(size)} px"}
    parts = {"float16": operations(half), "tf32": operations(full)}
    return case(OP, shape, parts, 2 * kernels_of(half) + 4 * kernels_of(full), partial(_build, size, batch))


def _build(size: int, batch: int, device: torch.device) -> Problem:
    made = random_weights(StyleGAN2(config(size))).to(device)
    assert isinstance(made, StyleGAN2)
    ws = torch.randn(batch, made.num_ws, made.w_dim, generator=generator(1, device), device=device)
    network = made.synthesis_network
    weights = dict(network.named_parameters()) | dict(network.named_buffers())
    weights = {name: value for name, value in weights.items() if not name.endswith("resample")}
    half = half_from(size) if device.type == "cuda" else None

    def eager(ws: torch.Tensor) -> torch.Tensor:
        return eager_synthesis(weights, ws, architecture="skip", clamp=CLAMP, half=half)

    return problem(made, ws, eager, {})
