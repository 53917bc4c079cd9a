"""Faces that train the small encoder: what the networks see of a rendering, with the latent behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.models.encoders.encoder import resized
from guide_fast.models.encoders.small import SIZE, seen
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream

KIND = "faces for the encoder"
BATCH = 8
LEAST_PSI = 0.5  # people of a photo lie nearer to the mean face than random ones
MIXED = 0.5  # share of the faces that have a second person's style from some slot on
# Photos are aligned less exactly than renderings, lit otherwise, less sharp.
SCALE, TURN, SHIFT = 0.03, 0.04, 0.03  # relative, radians, relative to half the image
GAMMA, CONTRAST, BRIGHTNESS, TINT, NOISE = (0.75, 1.3), (0.8, 1.2), 0.15, 0.06, 0.05
SOFTENED = (256, 192, 144)  # px through which an image goes


@dataclass
class Samples:
    """N faces; half precision but for the embeddings."""

    maps: list[Tensor]  # [N, C, h, w] each, as `small.seen` gives them
    embeddings: Tensor  # [N, E]
    codes: Tensor  # [N, L, D] in units of `scale` from w_mean
    scale: float  # W's standard deviation

    def __len__(self) -> int:
        return len(self.codes)


@torch.inference_mode()
def encoder_samples(
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    count: int,
    scale: float,
    seed: int,
    progress: Progress = silent,
) -> Samples:
    """`count` faces of `generator`, rendered at its own resolution; batch i of a seed reproduces alone.

    A small output would cost less than half, but an encoder trained on what the default generator's shows does less
    well on photos: similarity after six steps 0.72 with 16,384 such faces, 0.75 with 5,888 full ones, on ten photos.
    """
    found: Samples | None = None
    progress(KIND, 0, count, {})
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        random = stream("encoder", seed, first)
        ws = mixed_ws(generator, size, random)
        image = as_photographed(resized(generator.synthesis(ws).framed, SIZE), random)
        maps, embeddings = seen(image, identity=identity, perceptual=perceptual)
        if found is None:
            found = Samples(
                [torch.empty(count, *x.shape[1:], dtype=torch.float16) for x in maps],
                torch.empty(count, embeddings.shape[1]),
                torch.empty(count, *ws.shape[1:], dtype=torch.float16),
                scale,
            )
        rows = slice(first, first + size)
        for kept, x in zip(found.maps, maps, strict=True):
            kept[rows] = x
        found.embeddings[rows] = embeddings
        found.codes[rows] = (ws - generator.w_mean) / scale
        progress(KIND, first + size, count, {})
    assert found is not None
    return found


def mixed_ws(generator: Generator, count: int, random: torch.Generator) -> Tensor:
    """Latents [N, L, D] as photos have them: between the mean face and a random one, some with two people's styles."""
    device = generator.w_mean.device
    z = torch.randn(2, count, generator.z_dim, generator=random)
    w, other = (generator.mapping(part.to(device)) for part in z)
    psi = _uniform(LEAST_PSI, 1, count, random)[:, None, None].to(device)
    mixed = torch.rand(count, generator=random) < MIXED
    cut = torch.randint(1, generator.num_ws, (count,), generator=random)
    share = torch.rand(count, generator=random)
    late = (torch.arange(generator.num_ws) >= cut[:, None]) & mixed[:, None]  # [N, L]
    w = w + (late * share[:, None])[:, :, None].to(device) * (other - w)
    return generator.w_mean + psi * (w - generator.w_mean)


def as_photographed(images: Tensor, random: torch.Generator) -> Tensor:
    """[N, 3, R, R] in [-1, 1] -> the same, moved a little, with other light, less sharp, noisy."""
    count = len(images)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return _uniform(low, high, count, random, *shape).to(images)

    scale, turn = draw(1 - SCALE, 1 + SCALE), draw(-TURN, TURN)
    right, down = draw(-SHIFT, SHIFT), draw(-SHIFT, SHIFT)
    rows = (scale * turn.cos(), -scale * turn.sin(), right, scale * turn.sin(), scale * turn.cos(), down)
    grid = F.affine_grid(torch.stack(rows, dim=1).unflatten(1, (2, 3)), list(images.shape), align_corners=False)
    x = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    x = ((x.clamp(-1, 1) + 1) / 2).pow(draw(*GAMMA, 1, 1, 1)) * 2 - 1
    x = x * draw(*CONTRAST, 1, 1, 1) + draw(-BRIGHTNESS, BRIGHTNESS, 1, 1, 1)
    x = x + TINT * torch.randn(count, 3, 1, 1, generator=random).to(images)
    size = SOFTENED[int(torch.randint(len(SOFTENED), (1,), generator=random))]
    if size < images.shape[-1]:
        x = F.interpolate(F.interpolate(x, size=(size, size), mode="area"), size=images.shape[-2:], mode="bilinear")
    x = x + draw(0, NOISE, 1, 1, 1) * torch.randn(images.shape, generator=random).to(images)
    return x.clamp(-1, 1)


def _uniform(low: float, high: float, count: int, random: torch.Generator, *shape: int) -> Tensor:
    """[N, *shape] in [low, high)."""
    return low + (high - low) * torch.rand(count, *shape, generator=random)
