"""A generator of 32 px with networks of a few weights: what tests of the stages need, in milliseconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.config import Config, EvaluateConfig, LtuConfig, TargetConfig
from guide_fast.models.framing import Box
from guide_fast.models.frozen import freeze
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.modulation import Modulation
from guide_fast.models.perceptual import PerceptualNetwork

ARCHITECTURE = {"name": "tiny", "z_dim": 16, "w_dim": 16, "channels": [16, 16, 16], "slope": 0.2, "gain": math.sqrt(2)}
CONFIG = Config(
    target=TargetConfig(d=4.0, candidates=4, max_similarity=0.9),
    ltu=LtuConfig(steps=4, population=256, bank=4, resolution=16, lr=1e-3, radius=2.0, reached=-1.0),
    evaluate=EvaluateConfig(neighbours=2, bystanders=3, stranger_pairs=6, fd_images=8, batch=4),
)


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_generator(seed: int = 0) -> MobileStyleGAN:
    """32 px, 16 channels, W of 16 dimensions, 8 slots; most values of an image lie in [-1, 1]."""
    arguments = dict(ARCHITECTURE)
    tiny = MobileStyleGAN(arguments.pop("name"), **arguments)
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(tiny.named_parameters())):
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = 0.1 if name.endswith("bias") else 1 / math.sqrt(fan_in)
            parameter.copy_(seeded(*parameter.shape, seed=1000 * seed + i) * scale)
        tiny.input.mul_(4)
        for module in tiny.modules():
            if isinstance(module, Modulation):
                module.weight.mul_(1 / module.scale)  # styles that matter
                module.bias.fill_(1 / module.scale)
        for i, (name, buffer) in enumerate(tiny.named_buffers()):
            buffer.copy_(seeded(*buffer.shape, seed=50 + i) * 0.02 if name.endswith("noise") else torch.zeros(1))
        tiny.w_mean.copy_(tiny.mapping(seeded(2048, 16, seed=1))[:, 0].mean(dim=0))
    return MobileStyleGAN.from_tensors(tiny.state_dict(), ARCHITECTURE)


def person(generator: MobileStyleGAN, seed: int = 7) -> Tensor:
    """The latent [L, D] of a seed."""
    with torch.no_grad():
        return generator.mapping(seeded(1, generator.z_dim, seed=seed))[0].clone()


class TinyIdentity(IdentityNetwork):
    size, dimension = 8, 24

    def __init__(self, name: str = "tiny-identity", seed: int = 7) -> None:
        super().__init__(Box(0.0, 1.0, 0.0, 1.0))
        self.name = name
        self.register_buffer("weight", seeded(self.dimension, 3 * 8 * 8, seed=seed) / 14)
        freeze(self)

    def forward(self, crops: Tensor) -> Tensor:
        return F.linear(((crops - 127.5) / 127.5).flatten(1), self.weight)


class TinyPerceptual(PerceptualNetwork):
    name = "tiny-perceptual"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(seeded(*parameter.shape, seed=100 + i) * 0.3)
        freeze(self)

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        if size is not None:
            images = F.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
        return [F.leaky_relu(self.first(images))]

    def embed(self, images: Tensor) -> Tensor:
        return self.features(images)[-1].mean(dim=(2, 3))


class Averages(TinyPerceptual):
    """Three taps: the image averaged over 8, 16, 32 px."""

    name = "averages"

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        side = images.shape[-1] if size is None else size
        images = F.interpolate(images, size=(side, side), mode="bilinear")
        return [F.adaptive_avg_pool2d(images, max(1, side // stride)) + 1e-3 for stride in (8, 16, 32)]
