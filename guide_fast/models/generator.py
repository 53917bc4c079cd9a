"""The protocol every generator satisfies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from guide_fast.models.cameras import Cameras
from guide_fast.models.framing import ffhq_framed


@dataclass(frozen=True)
class Rendering:
    """What one synthesis pass returns."""

    image: Tensor  # [N, 3, R, R] in [-1, 1] (values may overshoot slightly)
    features: Tensor  # [N, C, H, W], the last synthesis features before RGB
    planes: Tensor | None = None  # [N, 96, 256, 256] for tri-plane generators
    image_raw: Tensor | None = None  # [N, 3, r, r] in [-1, 1], what a 3D generator renders before super-resolution
    depth: Tensor | None = None  # [N, 1, r, r], distance from its camera

    @property
    def compared(self) -> Tensor:
        """The paper's F, which unlearning compares: planes where there are any, else the features."""
        return self.features if self.planes is None else self.planes

    @property
    def framed(self) -> Tensor:
        """The image as frozen networks expect it: in FFHQ's framing, to which EG3D's is moved."""
        return self.image if self.planes is None else ffhq_framed(self.image)


@runtime_checkable
class Generator(Protocol):
    """A pretrained face generator; deterministic for given inputs.

    `layers` names what may be updated, coarse to fine: "<part>.modulation" maps a style vector to channel scales,
    "<part>.convolution" is the rest of that part. A conditional generator maps z without c by its own label.
    """

    name: str
    num_ws: int  # L, style slots
    w_dim: int  # D
    z_dim: int
    img_resolution: int
    layers: tuple[str, ...]
    lineage: tuple[str, ...]  # sha256 of the deltas applied, in order

    @property
    def w_mean(self) -> Tensor:
        """Mean style vector [D]."""
        ...

    @property
    def resolutions(self) -> tuple[int, ...]:
        """What `synthesis(resolution=...)` accepts, ascending."""
        ...

    @property
    def cameras(self) -> Cameras | None:
        """3D generators describe their cameras here."""
        ...

    def mapping(
        self,
        z: Tensor,  # [N, Z]
        c: Tensor | None = None,  # [N, C] conditioning
    ) -> Tensor:
        """Style vectors ws [N, L, D]."""
        ...

    def synthesis(
        self,
        ws: Tensor,  # [N, L, D]
        c: Tensor | None = None,
        *,
        noise: str = "const",
        resolution: int | None = None,
    ) -> Rendering:
        """Image with features from ONE pass."""
        ...

    def seen_layers(self, resolution: int) -> tuple[str, ...]:
        """The layers on which an image of `resolution` px depends; raises UsageError where there can be none."""
        ...

    def slot(self, layer: str) -> int:
        """Index in ws of the style vector that `layer` reads."""
        ...

    def layer_module(self, layer: str) -> nn.Module:
        """What holds a layer's parameters; its `modulation`, where it has one, is a `models.modulation.Modulation`."""
        ...

    def layer_parameters(self, layer: str) -> dict[str, nn.Parameter]:
        """Full parameter name -> parameter of one entry of `layers`."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As `torch.nn.Module.named_parameters`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """As `torch.nn.Module.state_dict`: parameters with buffers."""
        ...
