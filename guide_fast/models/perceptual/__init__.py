"""Perceptual networks: the contract they share, with the door that loads the default one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from guide_fast import kernels
from guide_fast.errors import UsageError
from guide_fast.models.frozen import FrozenNetwork


class PerceptualNetwork(FrozenNetwork):
    """A frozen network whose features measure how alike two images look, differentiable to its input."""

    name: str

    @abstractmethod
    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        """[N, 3, R, R] RGB in [-1, 1], resampled to `size` px (None: as is) -> taps, fine to coarse, [N, C, h, w]."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1] -> one pooled vector for each image [N, D], for Frechet distances."""

    def distance(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
        """Two results of `features` -> [N], from 0 (alike) to 4.

        At each place the channels of a tap are scaled to unit length; their squared difference is summed over
        channels, averaged over space, then over taps, every tap counting the same. Nothing is learned, so this is not
        LPIPS. Raises UsageError when the taps do not match.
        """
        shapes_a, shapes_b = ([tuple(tap.shape[1:]) for tap in features] for features in (features_a, features_b))
        if shapes_a != shapes_b or not shapes_a:
            raise UsageError(f"features to compare have taps {shapes_a} and {shapes_b}; take both at the same size")
        if not len(features_a[0]):
            return features_a[0].sum(dim=(1, 2, 3))  # no pairs, no distances
        if len(features_a[0]) < len(features_b[0]):  # the one image stands on the right
            features_a, features_b = features_b, features_a
        share = 1 / len(shapes_a)
        return kernels.feature_distance(features_a, features_b, weights=[share] * len(shapes_a), eps=1e-10)


def load_perceptual() -> PerceptualNetwork:
    """EfficientNet-Lite0 with its pinned weights, frozen, on the CPU in float32."""
    from guide_fast import assets
    from guide_fast.models.perceptual.efficientnet_lite import ASSET_NAME, EfficientNetLite0

    return EfficientNetLite0(*assets.load(ASSET_NAME))
