"""Identity networks: the contract they share, with the door that loads one by name."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast import kernels
from guide_fast.errors import UsageError
from guide_fast.models.framing import Box, Framing
from guide_fast.models.frozen import FrozenNetwork

IDENTITY_NETWORKS = ("dlib-resnet-v1", "faceres", "mobileface")
BROUGHT_IDENTITIES = ("arcface-ir50", "arcface-irse50", "arcface-ir100", "curricularface-ir101")  # by the user


class IdentityNetwork(FrozenNetwork):
    """A frozen network that tells people apart, differentiable to its input.

    `name` is that of `load_identity`, `size` the side of its native input in pixels, `dimension` that of its
    embedding D, and `framing` the crop that takes FFHQ-framed images to that input.
    """

    name: str
    size: int
    dimension: int

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.framing = Framing(box, self.size, pixels=True)

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1], FFHQ framing, any R -> embeddings [N, D], unit length unless a subclass says."""
        return F.normalize(self(self.framing(images)), dim=1)

    @abstractmethod
    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, size, size] RGB in [0, 255], already framed for this network -> the network's own output [N, D]."""

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine of embeddings [N, D] and [N, D] -> [N]; 1 is the same picture."""
        return 1 - _compare(a, b, kind="cosine")

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Euclidean distance of embeddings [N, D] and [N, D] -> [N]; its gradient where a == b is 0, not NaN."""
        return _compare(a, b, kind="l2", normalise=False)


def _compare(a: Tensor, b: Tensor, *, kind: str, normalise: bool = True) -> Tensor:
    """One embedding against many stands for as many pairs; no pairs have no distances."""
    a, b = torch.broadcast_tensors(a, b.to(a.dtype))  # under autocast one side may be in half precision
    return kernels.identity_loss(a, b, kind=kind, normalise=normalise) if len(a) else a.sum(dim=1)


def load_identity(name: str) -> IdentityNetwork:
    """The identity network called `name` with its pinned weights, or those brought for it; frozen, CPU, float32.

    Raises UsageError for a name outside `IDENTITY_NETWORKS`, `BROUGHT_IDENTITIES`; whatever `guide_fast.assets.load`
    or `guide_fast.brought.load` raises passes through: nothing ever stands in for a network that was not brought.
    """
    if name in BROUGHT_IDENTITIES:
        from guide_fast import brought
        from guide_fast.models.identity.iresnet import IResNet

        return IResNet(*brought.load(name))
    if name not in IDENTITY_NETWORKS:
        names = ", ".join((*IDENTITY_NETWORKS, *BROUGHT_IDENTITIES))
        raise UsageError(f"unknown identity network {name!r}; choose one of {names}")
    from guide_fast import assets

    tensors, config = assets.load(name)
    if name == "dlib-resnet-v1":
        from guide_fast.models.identity.dlib_resnet import DlibResNet

        return DlibResNet(tensors, config)
    if name == "faceres":
        from guide_fast.models.identity.faceres import FaceRes

        return FaceRes(tensors, config)
    from guide_fast.models.identity.mobileface import MobileFace

    return MobileFace(tensors, config)
