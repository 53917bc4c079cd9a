"""The small encoder: a head over networks that an inversion loads anyway, trained on what one generator makes.

Taps of the perceptual network tell where the parts of a face are, the identity network's embedding tells whose they
are. The head reads both and gives one code for all style slots, to which each slot adds a mixture of a few directions
of its own. Only the head has weights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.models.encoders.encoder import Encoder
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork

SIZE = 256  # px
TAPS = (-3, -2, -1)  # strides 8, 16, 32
LARGEST_MAP = 16  # places a side; finer taps are averaged
WIDTHS = (64, 128, 128)  # channels that each tap is brought to
JOINED, HIDDEN, DIRECTIONS = 128, 1024, 64
EMBEDDING_GAIN = 8.0  # a unit embedding's coordinates next to those of taps, which are about 1


class Head(nn.Module):
    """What the networks see of an image -> its latent, in units of W's standard deviation from the mean latent."""

    def __init__(self, *, channels: tuple[int, ...], dimension: int, num_ws: int, w_dim: int) -> None:
        super().__init__()
        self.shape = (num_ws, w_dim)
        strides = (2,) * (len(channels) - 1) + (1,)
        self.reduce = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in zip(channels, WIDTHS, strides, strict=True)
        )
        self.join = nn.Conv2d(sum(WIDTHS), JOINED, 3, padding=1)
        self.dense = nn.Linear(JOINED * (LARGEST_MAP // 2) ** 2 + dimension, HIDDEN)
        self.dropout = nn.Dropout(0.0)
        self.slopes = nn.ParameterList(nn.Parameter(torch.full((1,), 0.25)) for _ in range(3))
        self.common = nn.Linear(HIDDEN, w_dim)
        self.mixture = nn.Linear(HIDDEN, DIRECTIONS)
        self.directions = nn.Parameter(torch.zeros(DIRECTIONS, num_ws * w_dim))

    def forward(self, maps: list[Tensor], embedding: Tensor) -> Tensor:
        """Maps [N, C, h, w] as `seen` gives them with embeddings [N, E] -> [N, L, D]."""
        maps = [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]
        x = self.join(F.prelu(torch.cat(maps, dim=1), self.slopes[0]))  # [N, C, 8, 8]
        x = torch.cat((F.prelu(x, self.slopes[1]).flatten(1), EMBEDDING_GAIN * embedding), dim=1)
        x = self.dropout(F.prelu(self.dense(x), self.slopes[2]))
        own = self.mixture(x) @ self.directions
        return self.common(x)[:, None] + own.unflatten(1, self.shape)


class SmallEncoder(Encoder):
    """[N, 3, 256, 256] -> W+ of the generator that its head was trained on; `built.load_encoder` makes it."""

    resolution = SIZE

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        *,
        identity: IdentityNetwork,
        perceptual: PerceptualNetwork,
    ) -> None:
        super().__init__()
        self.name, self.family = config["name"], config["family"]
        self.num_ws, self.w_dim, self.scale = config["num_ws"], config["w_dim"], config["scale"]
        self.identity, self.perceptual = identity, perceptual
        self.head = Head(
            channels=tuple(config["channels"]), dimension=identity.dimension, num_ws=self.num_ws, w_dim=self.w_dim
        )
        self.head.load_state_dict(dict(tensors))
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        code: Tensor = self.head(*seen(images, identity=self.identity, perceptual=self.perceptual))
        return self.scale * code


def seen(
    images: Tensor,  # [N, 3, 256, 256] in [-1, 1], FFHQ framing
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
) -> tuple[list[Tensor], Tensor]:
    """What the head reads: maps [N, C, h, w] whose channels have mean square 1 in each place, embeddings [N, E]."""
    taps = perceptual.features(images, size=None)
    maps = [F.normalize(taps[tap], dim=1) * taps[tap].shape[1] ** 0.5 for tap in TAPS]
    maps = [F.adaptive_avg_pool2d(x, LARGEST_MAP) if x.shape[-1] > LARGEST_MAP else x for x in maps]
    return maps, identity.embed(images)
