"""What every encoder is: a frozen network from FFHQ-framed photos to W+ of one kind of generator."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.frozen import FrozenNetwork
from guide_fast.models.generator import Generator


class Encoder(FrozenNetwork):
    """A frozen network that gives the latent of a photo at once; always in eval mode.

    It belongs to generators of one `family` (as `models.loading.FAMILIES` names them) whose latents are
    [num_ws, w_dim]. What the network says is added to `offset`, the mean latent it was trained with; where its
    checkpoint has none, to the generator's own.
    """

    name: str
    family: str
    resolution: int  # px, side of the input
    num_ws: int  # L
    w_dim: int  # D
    offset: Tensor | None  # [L, D]

    def __init__(self, offset: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("offset", offset)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, resolution, resolution] in [-1, 1], framed for this network -> codes [N, L, D] before the offset."""

    def framed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] in [-1, 1], FFHQ framing, any R -> the network's input; a subclass may move the face."""
        return resized(images, self.resolution)

    def encode(
        self,
        images: Tensor,  # [N, 3, R, R] in [-1, 1], FFHQ framing, any R
        *,
        w_mean: Tensor,  # [D], the generator's
    ) -> Tensor:
        """The latents ws [N, L, D] of photos; raises UsageError when they are not square."""
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise UsageError(f"an encoder needs square images [N, 3, R, R], got shape {tuple(images.shape)}")
        return self(self.framed(images)) + (w_mean if self.offset is None else self.offset)

    def fits(self, generator: Generator) -> bool:
        """Whether `generator` is of the family, with latents of the shape, that this encoder was made for."""
        return (family_of(generator), generator.num_ws, generator.w_dim) == (self.family, self.num_ws, self.w_dim)

    def check_fits(self, generator: Generator) -> None:
        """Raise UsageError naming both shapes when `generator` is of another kind."""
        if not self.fits(generator):
            raise UsageError(
                f"{self.name} gives latents [{self.num_ws}, {self.w_dim}] of {self.family}, {generator.name} takes "
                f"[{generator.num_ws}, {generator.w_dim}] of {family_of(generator)}; use an encoder made for it or none"
            )


def family_of(generator: Generator) -> str:
    """The family of a generator, as `models.loading.FAMILIES` names it."""
    family: str = getattr(generator, "config", {}).get("family", "mobilestylegan")
    return family


def resized(images: Tensor, size: int, *, mode: str = "bilinear") -> Tensor:
    """Square images at `size` px as Pillow resizes them (`mode` "bilinear" or "bicubic", widened when reducing)."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode=mode, antialias=True)
