"""A bank of sampled latents from which the first guess for a photo is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.artifacts import rendering_sha256, weights_sha256
from guide_fast.derived import derived
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent

BATCH = 8
KIND = "sample bank"
FEATURE_SIZE = 128  # px given to the perceptual network
TAP = -2  # stride 16: parts of a face and where they are, not texture
RIDGE = 0.5  # relative to the mean squared feature; a photo is further from the samples than they are from each other


@dataclass(frozen=True)
class SampleBank:
    """Latents of random samples with what the frozen networks see in their renderings."""

    w: Tensor  # [S, D]
    embeddings: Tensor  # [S, E] of the identity network
    taps: Tensor  # [S, T] of the perceptual network, fp16

    def spread(self, w_mean: Tensor) -> float:
        """Root mean square of a coordinate's deviation from `w_mean` [D]."""
        return spread(self.w, w_mean)

    def guesses(
        self,
        photo: Tensor,  # [1, 3, R, R]
        *,
        identity: IdentityNetwork,
        perceptual: PerceptualNetwork,
        w_mean: Tensor,  # [D]
    ) -> Tensor:
        """Two guesses in W for the photo, [2, D]: the nearest sample, then ridge regression over all samples.

        The regression maps the features of both networks to W. With fewer samples than features its dual form costs one
        [S, S] solve, and its answer is a weighted sum of samples.
        """
        features, query = [], []
        for known, new in (
            (self.embeddings, identity.embed(photo)),
            (self.taps.float(), _tap(perceptual, photo).float()),
        ):
            mean = known.mean(dim=0)
            scale = (known - mean).square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
            features.append((known - mean) / scale)
            query.append((new - mean) / scale)
        known, new = torch.cat(features, dim=1).double(), torch.cat(query, dim=1).double()
        nearest = self.w[(known - new).square().sum(dim=1).argmin()]
        kernel = known @ known.T
        kernel.diagonal().add_(RIDGE * len(features))
        weights = torch.linalg.solve(kernel, (known @ new.T)[:, 0]).to(self.w)
        return torch.stack((nearest, w_mean + weights @ (self.w - w_mean)))


def spread(w: Tensor, w_mean: Tensor) -> float:
    """Root mean square of a coordinate's deviation from `w_mean` [D] over latents `w` [S, D]; never 0."""
    return max((w - w_mean).square().mean().sqrt().item(), 1e-6)


def sampled_ws(generator: Generator, samples: int, seed: int) -> Tensor:
    """The latents [S, L, D] of `samples` random z; the same for the same seed."""
    z = torch.randn(samples, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    return generator.mapping(z.to(generator.w_mean))


@torch.no_grad()
def sample_bank(
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    samples: int,
    resolution: int | None,
    seed: int,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> SampleBank:
    """The bank of `seed`: rendered at `resolution` (None: the generator's own), or read where `cache_dir` has it.

    A cached bank belongs to the generator's weights with the head for `resolution`, both networks, the resolution, the
    number of samples, the seed.
    """
    size = resolution or generator.img_resolution

    def render() -> dict[str, Tensor]:
        ws = sampled_ws(generator, samples, seed)
        embeddings, taps = [], []
        progress(KIND, 0, samples, {})
        for first in range(0, samples, BATCH):
            images = generator.synthesis(ws[first : first + BATCH], resolution=resolution).framed
            embeddings.append(identity.embed(images))
            taps.append(_tap(perceptual, images))
            progress(KIND, min(first + BATCH, samples), samples, {})
        return vars(SampleBank(ws[:, 0].contiguous(), torch.cat(embeddings), torch.cat(taps)))

    key = {
        "rendering_sha256": rendering_sha256(generator, size),
        "resolution": size,
        "samples": samples,
        "seed": seed,
        "batch": BATCH,
        "identity": [identity.name, weights_sha256(identity)],
        "perceptual": [perceptual.name, weights_sha256(perceptual)],
        "perceptual_size": FEATURE_SIZE,
    }
    tensors = derived(cache_dir, f"samples-{size}-{samples}", KIND, key, render)
    return SampleBank(**{name: tensor.to(generator.w_mean.device) for name, tensor in tensors.items()})


def _tap(perceptual: PerceptualNetwork, images: Tensor) -> Tensor:
    """One tap, unit length in each place, [N, C * h * w] in half precision."""
    tap = perceptual.features(images, size=FEATURE_SIZE)[TAP]
    return F.normalize(tap, dim=1).flatten(1).half()
