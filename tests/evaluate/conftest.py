"""A generator of 32 px with networks of a few weights: everything an evaluation needs, in milliseconds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.artifacts import Delta, Forgotten, Latent, Report, Target
from guide_fast.config import EvaluateConfig
from guide_fast.evaluate.thumbnails import Pair
from guide_fast.models.framing import Box
from guide_fast.models.frozen import freeze
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

CONFIG = EvaluateConfig(neighbours=3, bystanders=5, stranger_pairs=20, fd_images=12, batch=4)


class TinyJudge(IdentityNetwork):
    name, size, dimension = "tiny-judge", 8, 16

    def __init__(self, seed: int = 0) -> None:
        super().__init__(Box(0.2, 0.9, 0.15, 0.85))
        rng = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * 8 * 8, self.dimension, generator=rng))
        self.images_seen = 0
        freeze(self)

    def forward(self, crops: Tensor) -> Tensor:
        self.images_seen += len(crops)
        return (crops - 127.5).flatten(1) @ self.weight


class TinyPerceptual(PerceptualNetwork):
    name = "tiny-perceptual"

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        return [images]

    def embed(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 4).flatten(1)


def tiny_generator(seed: int = 0) -> MobileStyleGAN:
    generator = MobileStyleGAN("tiny", z_dim=8, w_dim=8, channels=[16, 16, 16], slope=0.2, gain=1.4)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
            if name.startswith("mapping"):
                parameter.mul_(parameter.shape[-1] ** -0.5)
            elif "modulation" in name:
                parameter.mul_(0.25).add_(float(name.endswith("bias")))
            elif name.endswith("bias"):
                parameter.mul_(0.1)
        for buffer in generator.buffers():
            buffer.copy_(torch.randn(buffer.shape, generator=rng) * 0.1)
        images = generator.synthesis(generator.mapping(torch.randn(32, 8, generator=rng))).image
        for parameter in (generator.to_img.weight, generator.to_img.bias):
            parameter.mul_(0.4 / images.std())  # most values of an image lie in [-1, 1]
    return generator.eval().requires_grad_(False)


@pytest.fixture
def base() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture
def edited(base: MobileStyleGAN) -> MobileStyleGAN:
    """The base after a change that shows."""
    generator = copy.deepcopy(base)
    with torch.no_grad():
        generator.conv1.weight.mul_(-1)
    return generator


@pytest.fixture
def source(base: MobileStyleGAN) -> Latent:
    z = torch.randn(1, base.z_dim, generator=torch.Generator().manual_seed(7))
    return Latent(w=base.mapping(z)[0], generator=base.name, origin="seed:7")


@pytest.fixture
def config() -> EvaluateConfig:
    return CONFIG


@pytest.fixture
def judge() -> TinyJudge:
    return TinyJudge()


@pytest.fixture
def third() -> TinyJudge:
    network = TinyJudge(seed=1)
    network.name = "tiny-third"
    return network


@pytest.fixture
def perceptual() -> PerceptualNetwork:
    return freeze(TinyPerceptual())


@pytest.fixture
def pairs() -> tuple[Pair, ...]:
    """A person, 8 neighbours, 10 bystanders of whom the ninth changed most, all of them noise."""
    rng = torch.Generator().manual_seed(0)

    def noise(size: int) -> Tensor:
        return torch.randint(0, 256, (3, size, size), generator=rng, dtype=torch.uint8)

    person = Pair("person", noise(256), noise(256), 0.28)
    neighbours = [Pair("neighbour", noise(128), noise(128), 0.3 + i / 100) for i in range(8)]
    bystanders = [
        Pair("bystander", noise(128), noise(128), 0.5 if i == 8 else 0.97, most_changed=i == 8) for i in range(10)
    ]
    return (person, *neighbours, *bystanders)


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Numbers of a run that held."""
    return {
        "judge": "tiny-judge",
        "forgotten": 0.281,
        "forgotten_person": 0.26,
        "forgotten_neighbours": [0.25, 0.31],
        "forgotten_person_match": False,
        "match_threshold_fmr_1e3": 0.62,
        "stranger_mean": 0.39,
        "stranger_std": 0.06,
        "retained": 0.971,
        "retained_p05": 0.953,
        "fd_pre": 1.25,
        "fd_pre_n": 256,
        "third_opinion": {
            "name": "tiny-third",
            "forgotten": 0.1,
            "retained": 0.9,
            "stranger_mean": 0.2,
            "stranger_std": 0.1,
        },
    }


@pytest.fixture
def forgotten(metrics: dict[str, Any]) -> Callable[..., Forgotten]:
    """A result around the metrics; keyword arguments replace fields of its delta."""

    def build(curve: tuple[dict[str, float], ...] | None = None, **fields: Any) -> Forgotten:
        if curve is None:
            curve = tuple(
                {"step": i, "loss": 5.0 - i / 10, "forgotten": 1 - i / 70, "retained": 1 - i / 2000}
                for i in range(0, 51, 5)
            )
        delta = {
            "tensors": {"conv1.weight": torch.ones(4, 5, dtype=torch.int32)},
            "base_sha256": "b" * 64,
            "result_sha256": "a" * 64,
            "generator": "tiny",
            "seeds": {"ltu": 3},
            "config": {"ltu": {"steps": 50}},
        }
        latent = Latent(w=torch.zeros(8, 8), generator="tiny", origin="seed:7")
        return Forgotten(
            delta=Delta(**(delta | fields)),
            metrics=metrics,
            source=latent,
            target=Target(w=torch.zeros(8, 8), kind="ufo", d=8.02),
            report=Report(metrics=metrics, curve=curve),
        )

    return build
