"""StyleGAN2 of a few channels with random weights, in any published form."""

from __future__ import annotations

import math
from typing import Any

import torch
from tiny import seeded

from guide_fast.models.stylegan2 import StyleGAN2

CONFIG: dict[str, Any] = {
    "family": "stylegan2",
    "name": "tiny-stylegan2",
    "z_dim": 12,
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 3,
    "channel_base": 256,
    "channel_max": 16,
    "num_fp16_res": 0,
    "conv_clamp": None,
    "architecture": "skip",
    "resample_filter": [1, 3, 3, 1],
    "use_noise": True,
    "activation": "lrelu",
    "mapping": {
        "num_layers": 2,
        "embed_features": None,
        "layer_features": None,
        "activation": "lrelu",
        "lr_multiplier": 0.01,
        "w_avg_beta": 0.998,
    },
}


def tiny_stylegan2(seed: int = 0, **changes: Any) -> StyleGAN2:
    """Weights as at the start of training, but with noise and biases that show; `w_avg` is the mean over z."""
    generator = StyleGAN2(CONFIG | changes)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(generator.named_parameters())):
            value = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1000 * seed + i))
            if name.startswith("mapping_network.fc") and name.endswith("weight"):
                value /= generator.config["mapping"]["lr_multiplier"]
            if name.endswith("modulation.bias"):
                value = 1 + 0.1 * value
            elif name.endswith(("bias", "strength")):
                value = 0.2 * value
            parameter.copy_(value)
        for i, (name, buffer) in enumerate(generator.named_buffers()):
            if name.endswith("noise_const"):
                buffer.copy_(seeded(*buffer.shape, seed=50 + i))
        z = seeded(512, generator.z_dim, seed=1)
        c = torch.nn.functional.one_hot(torch.arange(512) % generator.c_dim).float() if generator.c_dim else None
        generator.w_mean.copy_(generator.mapping(z, c)[:, 0].mean(dim=0))
        for name, parameter in generator.named_parameters():
            if name.endswith("torgb.weight"):
                parameter.mul_(0.5 / math.sqrt(len(generator.resolutions)))  # most of an image lies in [-1, 1]
    return generator.eval().requires_grad_(False)
