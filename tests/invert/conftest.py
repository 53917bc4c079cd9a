"""A generator of few channels with random weights, as small frozen networks to invert it with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.config import InvertConfig
from guide_fast.models.framing import Box
from guide_fast.models.frozen import freeze
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.modulation import Modulation
from guide_fast.models.perceptual import PerceptualNetwork


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TinyIdentity(IdentityNetwork):
    size = 16
    dimension = 24

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(Box(0.1, 0.9, 0.1, 0.9))
        self.name = name
        self.register_buffer("weight", seeded(self.dimension, 3 * 16 * 16, seed=seed) / 28)
        freeze(self)

    def forward(self, crops: Tensor) -> Tensor:
        return F.linear(((crops - 127.5) / 127.5).flatten(1), self.weight)


class TinyPerceptual(PerceptualNetwork):
    name = "tiny-perceptual"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(seeded(*parameter.shape, seed=100 + i) * 0.3)
        freeze(self)

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        if size is not None:
            images = F.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
        first = F.leaky_relu(self.first(images))
        return [first, self.second(first)]

    def embed(self, images: Tensor) -> Tensor:
        return self.features(images)[-1].mean(dim=(2, 3))


@pytest.fixture
def generator() -> MobileStyleGAN:
    """32 px, 16 channels, W of 16 dimensions."""
    tiny = MobileStyleGAN("tiny", z_dim=16, w_dim=16, channels=[16, 16, 16], slope=0.2, gain=math.sqrt(2))
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(tiny.named_parameters())):
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = 0.1 if name.endswith("bias") else 1 / math.sqrt(fan_in)
            parameter.copy_(seeded(*parameter.shape, seed=i) * scale)
        tiny.input.mul_(4)
        tiny.to_img.weight.mul_(0.2)  # images of about [-1, 1]
        for module in tiny.modules():
            if isinstance(module, Modulation):
                module.weight.mul_(1.5 / module.scale)  # styles that matter
                module.bias.fill_(1 / module.scale)
        for i, (name, buffer) in enumerate(tiny.named_buffers()):
            buffer.copy_(seeded(*buffer.shape, seed=50 + i) * 0.02 if name.endswith("noise") else torch.zeros(1))
        tiny.w_mean.copy_(tiny.mapping(seeded(2048, 16, seed=1))[:, 0].mean(dim=0))
    return tiny.eval().requires_grad_(False)


@pytest.fixture
def identity() -> IdentityNetwork:
    return TinyIdentity("tiny-identity", seed=7)


@pytest.fixture
def judge() -> IdentityNetwork:
    return TinyIdentity("tiny-judge", seed=8)


@pytest.fixture
def perceptual() -> PerceptualNetwork:
    return TinyPerceptual()


@pytest.fixture
def config() -> InvertConfig:
    return InvertConfig(
        samples=32, steps_w=40, steps_w_plus=40, lr=0.05, prior=0.001, resolution=32, min_similarity=0.5
    )
