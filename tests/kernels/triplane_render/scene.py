"""Small scenes for the tests of triplane_render: random planes, a decoder that makes surfaces, rays into the box."""

from __future__ import annotations

from dataclasses import dataclass

import contract
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels import triplane_render


@dataclass(frozen=True)
class Scene:
    """Sizes of a rendering."""

    n: int
    rays: int
    h: int
    w: int
    coarse: int
    fine: int

    def tensors(
        self, dtype: torch.dtype = torch.float32, *, channels: int = 32, hidden: int = 64, out: int = 32
    ) -> list[Tensor]:
        """planes, w1, b1, w2, b2: what has a gradient."""
        random = torch.Generator().manual_seed(self.n + self.rays + self.h + self.coarse)
        draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
        w2 = draw(1 + out, hidden) * 0.2
        w2[0] *= 8  # steep density: surfaces, not fog
        b2 = draw(1 + out) * 0.5
        b2[0] = 2  # rays meet something: the depth of one that does not is ill-conditioned
        tensors = [
            draw(self.n, 3, channels, self.h, self.w),
            draw(hidden, channels) * 0.4,
            draw(hidden) * 0.2,
            w2,
            b2,
        ]
        return [t.to(contract.DEVICE, dtype) for t in tensors]

    def rays_into_the_box(self) -> tuple[Tensor, Tensor]:
        """origins, directions; some leave through a side."""
        random = torch.Generator().manual_seed(7 * self.rays)
        origins = torch.tensor([0.05, -0.1, 2.7]).expand(self.n, self.rays, 3) + 0.01
        towards = torch.tensor([0.02, 0.03, -1.0]) + 0.13 * torch.randn(self.n, self.rays, 3, generator=random)
        return origins.to(contract.DEVICE), F.normalize(towards, dim=-1).to(contract.DEVICE)

    def draws(self) -> dict[str, Tensor]:
        """Random jitter, u."""
        random = torch.Generator().manual_seed(3 + self.rays)
        shape = (self.n, self.rays)
        drawn = {
            "jitter": torch.rand(*shape, self.coarse, 1, generator=random),
            "u": torch.rand(*shape, self.fine, generator=random),
        }
        return {name: t.to(contract.DEVICE) for name, t in drawn.items()}

    def render(self, *tensors: Tensor, **settings: object) -> Tensor:
        """All three outputs side by side, in planes' dtype: [N, R, O + 2]."""
        planes, *decoder = tensors
        settings = {"depth_resolution": self.coarse, "depth_resolution_importance": self.fine} | settings
        outputs = triplane_render(planes, *self.rays_into_the_box(), tuple(decoder), **settings)
        return torch.cat([t.to(planes.dtype) for t in outputs], -1)


SCENES = {
    "one": Scene(1, 1, 4, 4, 4, 1),
    "odd": Scene(2, 2, 7, 9, 6, 5),
    "flat": Scene(1, 1, 1, 16, 12, 20),
    "eg3d": Scene(1, 2, 16, 16, 48, 48),
    "coarse": Scene(1, 2, 8, 8, 33, 0),
}
