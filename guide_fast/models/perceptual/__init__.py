"""Perceptual networks: the contract they share, with the door that loads one by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from guide_fast import kernels
from guide_fast.errors import UsageError
from guide_fast.models.frozen import FrozenNetwork

DEFAULT = "efficientnet-lite0"
BROUGHT_PERCEPTUALS = ("lpips-vgg16", "lpips-alex", "inception-v3-fid")  # by the user


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


def load_perceptual(name: str = DEFAULT) -> PerceptualNetwork:
    """The perceptual network called `name` with its pinned weights, or those brought for it; frozen, CPU, float32.

    Raises UsageError for an unknown name; whatever `guide_fast.assets.load` or `guide_fast.brought.load` raises passes
    through: nothing ever stands in for a network that was not brought.
    """
    if name in BROUGHT_PERCEPTUALS:
        from guide_fast import brought

        if name == "inception-v3-fid":
            from guide_fast.models.perceptual.inception import InceptionV3

            return InceptionV3(*brought.load(name))
        from guide_fast.models.perceptual.lpips import LPIPS

        return LPIPS(*brought.load(name))
    if name != DEFAULT:
        names = ", ".join((DEFAULT, *BROUGHT_PERCEPTUALS))
        raise UsageError(f"unknown perceptual network {name!r}; choose one of {names}")
    from guide_fast import assets
    from guide_fast.models.perceptual.efficientnet_lite import ASSET_NAME, EfficientNetLite0

    return EfficientNetLite0(*assets.load(ASSET_NAME))
