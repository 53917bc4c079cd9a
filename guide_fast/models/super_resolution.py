"""EG3D's super-resolution: the rendered features, enlarged to the image in two StyleGAN2 blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.stylegan2_layers import NOISES, Block

CLAMP = 256.0  # of every convolution, where the checkpoint asks for half precision


@dataclass(frozen=True)
class Kind:
    """One published form: what comes in, what goes out, the channels of both blocks."""

    inputs: int  # px
    outputs: int  # px
    channels: tuple[int, int]

    @property
    def first_up(self) -> int:
        """Factor of the first block; the second one always doubles."""
        return self.outputs // self.inputs // 2


KINDS = {
    "2X": Kind(64, 128, (128, 64)),
    "4X": Kind(128, 256, (128, 64)),
    "8X": Kind(128, 512, (128, 64)),
    "8XDC": Kind(128, 512, (256, 128)),
}


class SuperResolution(nn.Module):
    """Features [N, C, R, R] with the raw image that is their first three channels -> image [N, 3, R', R'].

    `kind` is a key of `KINDS`: the names count from the 64 px at which training begins. Input of another size is
    resized first (bilinear; `antialias` widens the filter when shrinking). All style vectors are the last of ws. Half
    precision, with the clamp that belongs to it, is used on a CUDA device only; the clamp stays everywhere, as
    published. `noise` is the checkpoint's choice of noise maps. Raises UsageError for an unknown kind or noise, or an
    image size that the kind does not make. Source: EG3D (arXiv 2112.07945), section 4.3.
    """

    def __init__(
        self, kind: str, *, channels: int, w_dim: int, img_resolution: int, half: bool, antialias: bool, noise: str
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UsageError(f"super-resolution {kind!r} is not known; the published ones are {', '.join(KINDS)}")
        shape = KINDS[kind]
        if img_resolution != shape.outputs:
            raise UsageError(f"super-resolution {kind} makes {shape.outputs} px, the checkpoint says {img_resolution}")
        if noise not in NOISES:
            raise UsageError(f"noise {noise!r} of the super-resolution is not one of {', '.join(NOISES)}")
        self.input_resolution, self.antialias, self.noise = shape.inputs, antialias, noise
        first, second = shape.channels
        self.block0 = Block(
            channels,
            first,
            w_dim=w_dim,
            size=shape.inputs * shape.first_up,
            img_channels=3,
            last=False,
            clamp=CLAMP if half else None,
            half=half,
            up=shape.first_up,
        )
        self.block1 = Block(
            first,
            second,
            w_dim=w_dim,
            size=shape.outputs,
            img_channels=3,
            last=True,
            clamp=CLAMP if half else None,
            half=half,
        )

    def forward(
        self,
        features: Tensor,  # [N, C, R, R]
        ws: Tensor,  # [N, L, D]
        *,
        random: torch.Generator | None = None,
        impl: str = "auto",
    ) -> Tensor:
        """[N, 3, R', R']; `random` is needed where the checkpoint draws noise anew."""
        if self.noise == "random" and random is None:
            raise UsageError("this super-resolution draws noise: give random=torch.Generator()")
        x = features
        if x.shape[-1] != self.input_resolution:
            size = (self.input_resolution, self.input_resolution)
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=self.antialias)
        image: Tensor | None = x[:, :3]  # resizing acts on every channel alone
        last = ws[:, -1:].expand(-1, 3, -1)
        y, image = self.block0(x, image, last, noise=self.noise, random=random, impl=impl)
        _, image = self.block1(y, image, last, noise=self.noise, random=random, impl=impl)
        assert image is not None
        return image
