"""What an inversion minimises: how far a rendering is from the photo."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from guide_fast.config import InvertConfig
from guide_fast.models.framing import Box, Framing
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork

# The face with the hairline, without background and shoulders: a generator spends its freedom on what it is asked for.
PERCEPTUAL_BOX = Box(0.19, 0.94, 0.125, 0.875)
PERCEPTUAL_SHARE = 0.75  # side of the box, so that its pixels are those of the rendering
PIXEL_SIZE = 64  # px; finer pixels ask for the background and for single hairs


@dataclass(frozen=True)
class Terms:
    """The three terms of each image before weighting, [N] each: 0 is the photo itself."""

    identity: Tensor  # 1 - similarity of the identity network
    perceptual: Tensor  # 0 to 4
    pixel: Tensor  # mean squared difference in [-1, 1]

    def weighted(self, config: InvertConfig) -> Tensor:
        """The weighted sum [N]."""
        return config.identity * self.identity + config.perceptual * self.perceptual + config.pixel * self.pixel


class Objective:
    """Distance of images to one photo, differentiable; the photo's features are taken once.

    `photo` is [1, 3, R, R] in [-1, 1], FFHQ framing; images may have another resolution.
    """

    def __init__(
        self, photo: Tensor, *, identity: IdentityNetwork, perceptual: PerceptualNetwork, config: InvertConfig
    ) -> None:
        self._identity, self._perceptual = identity, perceptual
        self._crop = Framing(PERCEPTUAL_BOX, round(PERCEPTUAL_SHARE * config.resolution))
        photo = reduced(photo, config.resolution)
        self._photo_embedding = identity.embed(photo)
        self._photo_taps = perceptual.features(self._crop(photo), size=None)
        self._photo_pixels = reduced(photo, PIXEL_SIZE)

    def __call__(self, images: Tensor) -> Terms:
        """[N, 3, R, R] in [-1, 1] -> the terms of each image."""
        embedding = self._photo_embedding.expand(len(images), -1)
        taps = self._perceptual.features(self._crop(images), size=None)
        pixels = reduced(images, self._photo_pixels.shape[-1])
        pixels = pixels - reduced(self._photo_pixels, pixels.shape[-1])
        return Terms(
            identity=1 - self._identity.similarity(self._identity.embed(images), embedding),
            perceptual=self._perceptual.distance(taps, self._photo_taps),
            pixel=pixels.square().mean(dim=(1, 2, 3)),
        )


def reduced(images: Tensor, resolution: int) -> Tensor:
    """Square images averaged down to `resolution` px; smaller ones stay as they are."""
    if images.shape[-1] <= resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="area")
