"""EG3D's image at 512 px from one camera, in the precision of the published checkpoint, with random weights.

The backbone and the renderer are in float32 whose products round to tf32, since they were trained so; the
super-resolution 8XDC is in float16 with its clamp at 256. 128 x 128 rays of 48 + 48 samples. From style vectors on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from guide_fast.bench.baselines.eg3d_eager import eager_eg3d
from guide_fast.bench.case import Case, Problem, generator
from guide_fast.bench.generators.whole_image import (
    case,
    images_per_second,
    kernels_of,
    milliseconds,
    operations,
    problem,
    random_weights,
)
from guide_fast.bench.goals import Goal
from guide_fast.bench.kernels.bench_modulated_conv2d import Layer, stylegan2
from guide_fast.bench.kernels.bench_triplane_render import CHANNELS, COLOURS, HIDDEN, POINT_FLOPS
from guide_fast.models import cameras
from guide_fast.models.eg3d import EG3D
from guide_fast.models.super_resolution import CLAMP, KINDS

OP = "eg3d_image"
START, END = 2.25, 3.3
ROUGH, ROUGHNESS = 64, 0.1  # from so many px on, planes get so much of a level: trained ones are smooth

GOALS = (
    Goal("512 px, batch 1: at most 1.2 ms", 1.2, milliseconds(512, 1), at_most=True),
    Goal("512 px, batch 8: at least 1500 images/s", 1500.0, images_per_second(512, 8)),
)


@dataclass(frozen=True)
class Sizes:
    """What tells the published generator from the smoke run's."""

    kind: str
    planes: int  # px
    channel_base: int
    channel_max: int
    samples: int  # coarse; as many fine ones


PUBLISHED = Sizes("8XDC", 256, 32768, 512, 48)
SMOKE = Sizes("2X", 32, 256, 16, 8)


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """The two batch sizes of the goals."""
    for batch in (1,) if smoke else (1, 8):
        yield _case(SMOKE if smoke else PUBLISHED, batch)


def config(sizes: Sizes) -> dict[str, Any]:
    """As the door for published files makes it."""
    enlarging = KINDS[sizes.kind]
    common = {"z_dim": 512, "c_dim": cameras.LABEL, "w_dim": 512}
    backbone = {
        "img_resolution": sizes.planes,
        "img_channels": 3 * CHANNELS,
        "channel_base": sizes.channel_base,
        "channel_max": sizes.channel_max,
        "num_fp16_res": 0,
        "conv_clamp": None,
        "architecture": "skip",
        "mapping": {"num_layers": 2, "lr_multiplier": 0.01},
    }
    rendering = {"c_scale": 1.0, "ray_start": START, "ray_end": END, "box_warp": 1, "clamp_mode": "softplus"}
    rendering |= {"depth_resolution": sizes.samples, "depth_resolution_importance": sizes.samples}
    return common | {
        "family": "eg3d",
        "name": "eg3d",
        "img_resolution": enlarging.outputs,
        "neural_rendering_resolution": enlarging.inputs,
        "backbone": common | backbone,
        "super_resolution": {
            "kind": sizes.kind,
            "channels": COLOURS,
            "img_resolution": enlarging.outputs,
            "sr_num_fp16_res": 4,
            "sr_antialias": True,
            "noise_mode": "none",
        },
        "decoder": {"features": CHANNELS, "outputs": COLOURS, "hidden": HIDDEN, "lr_multiplier": 1.0},
        "rendering": rendering,
    }


def _case(sizes: Sizes, batch: int) -> Case:
    kind = KINDS[sizes.kind]
    first, second = kind.channels
    backbone = list(stylegan2(sizes.planes, 3 * CHANNELS, channel_base=sizes.channel_base))
    middle = kind.inputs * kind.first_up
    enlarging = [
        Layer(kind.inputs, COLOURS, first, up=kind.first_up),
        Layer(middle, first, first),
        Layer(middle, first, second, up=2),
        Layer(kind.outputs, second, second),
        Layer(kind.outputs, second, 3, kernel=1, demodulate=False),
    ]
    points = kind.inputs**2 * 2 * sizes.samples
    parts = {"tf32": operations(backbone) + points * POINT_FLOPS, "float16": operations(enlarging)}
    shape: dict[str, int | str] = {
        "batch": batch,
        "size": kind.outputs,
        "rays": kind.inputs**2,
        "samples": 2 * sizes.samples,
    }
    shape |= {"super-resolution": sizes.kind, "float16": "the super-resolution"}
    weights = 4 * kernels_of(backbone) + 2 * kernels_of(enlarging)
    return case(OP, shape, parts, weights, partial(_build, sizes, batch))


def _build(sizes: Sizes, batch: int, device: torch.device) -> Problem:
    made = random_weights(EG3D(config(sizes)))
    assert isinstance(made, EG3D)
    for name, parameter in made.backbone.synthesis.named_parameters():
        if name.endswith("torgb.weight") and int(name.split(".")[0][1:]) >= ROUGH:
            parameter.mul_(ROUGHNESS)
    made.to(device)
    label = made.cameras.frontal.to(device)  # inside the call it would be copied to the device, which no graph can hold
    ws = torch.randn(batch, made.num_ws, made.w_dim, generator=generator(1, device), device=device)
    weights = dict(made.named_parameters()) | dict(made.named_buffers())
    weights = {name: value for name, value in weights.items() if not name.endswith("resample")}
    decoder = made.decoder.weights()

    def eager(ws: torch.Tensor) -> torch.Tensor:
        origins, directions = cameras.rays(label.expand(len(ws), -1), made.neural_rendering_resolution)
        half = device.type == "cuda"
        options: dict[str, Any] = {"start": START, "end": END, "samples": sizes.samples}
        return eager_eg3d(weights, decoder, ws, origins, directions, kind=sizes.kind, clamp=CLAMP, half=half, **options)

    return problem(made, ws, eager, {"c": label})
