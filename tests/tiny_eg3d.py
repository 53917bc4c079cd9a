"""EG3D of a few channels with random weights: planes of 32 px, any published super-resolution."""

from __future__ import annotations

from typing import Any

import torch
from tiny import seeded
from tiny_stylegan2 import CONFIG as BACKBONE

from guide_fast.models.eg3d import EG3D
from guide_fast.models.super_resolution import KINDS

RENDERING: dict[str, Any] = {
    "c_gen_conditioning_zero": False,
    "c_scale": 1.0,
    "clamp_mode": "softplus",
    "disparity_space_sampling": False,
    "depth_resolution": 8,
    "depth_resolution_importance": 8,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": [0, 0, 0.2],
}


def tiny_config(kind: str = "2X", **rendering: Any) -> dict[str, Any]:
    """As the door for published files makes it."""
    shape = KINDS[kind]
    return {
        "family": "eg3d",
        "name": "tiny-eg3d",
        "z_dim": 12,
        "c_dim": 25,
        "w_dim": 16,
        "img_resolution": shape.outputs,
        "neural_rendering_resolution": 64,
        "backbone": BACKBONE | {"c_dim": 25, "img_channels": 96},
        "super_resolution": {
            "kind": kind,
            "channels": 32,
            "img_resolution": shape.outputs,
            "sr_num_fp16_res": 4,
            "sr_antialias": True,
            "noise_mode": "none",
        },
        "decoder": {"features": 32, "outputs": 32, "hidden": 64, "lr_multiplier": 1.0},
        "rendering": RENDERING | rendering,
    }


def tiny_eg3d(kind: str = "2X", **rendering: Any) -> EG3D:
    """Weights as at the start of training, but with noise and biases that show, solid enough to hide what is behind."""
    generator = EG3D(tiny_config(kind, **rendering))
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(generator.named_parameters())):
            value = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            if ".mapping.fc" in name and name.endswith("weight"):
                value /= 0.01  # the learning rate of mapping layers
            if name.endswith("modulation.bias"):
                value = 1 + 0.1 * value
            elif name.endswith(("bias", "strength")):
                value = 0.2 * value
            parameter.copy_(value)
        generator.decoder.net["2"].bias[0] += 2
        for i, (name, buffer) in enumerate(generator.named_buffers()):
            if name.endswith("noise_const"):
                buffer.copy_(seeded(*buffer.shape, seed=500 + i))
        z = seeded(256, generator.z_dim, seed=1)
        generator.w_mean.copy_(generator.mapping(z)[:, 0].mean(dim=0))
    return generator.eval().requires_grad_(False)
