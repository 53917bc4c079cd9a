"""EG3D's volume renderer: camera labels, planes, decoder in, feature images out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from guide_fast.errors import UsageError
from guide_fast.kernels import triplane_render
from guide_fast.models.cameras import rays
from guide_fast.models.stylegan2_layers import Dense

AUTO = "auto"  # ray limits: where the ray meets the box


class Decoder(nn.Module):
    """Plane features [C] -> density with `outputs` colours, two layers with a softplus between, in published names."""

    def __init__(self, features: int, hidden: int, outputs: int, *, lr_multiplier: float) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "0": Dense(features, hidden, lr=lr_multiplier, lrelu=False),
                "2": Dense(hidden, 1 + outputs, lr=lr_multiplier, lrelu=False),
            }
        )

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w1 [K, C], b1 [K], w2 [1 + O, K], b2 [1 + O] with the learning-rate gains folded in."""
        first, second = (cast(Dense, self.net[layer]) for layer in ("0", "2"))
        return (
            first.weight * first.gain,
            first.bias * first.lr,
            second.weight * second.gain,
            second.bias * second.lr,
        )


@dataclass(frozen=True)
class VolumeRenderer:
    """How rays are sampled; see `kernels/triplane_render` for the formulas.

    `ray_start`, `ray_end` are distances along the ray, or both "auto": where the ray enters and leaves the box.
    """

    box_warp: float
    ray_start: float | str
    ray_end: float | str
    coarse: int  # samples a ray
    fine: int
    white_back: bool = False

    @classmethod
    def from_rendering(cls, name: str, rendering: Mapping[str, Any]) -> VolumeRenderer:
        """From a checkpoint's rendering options; raises UsageError for those that no published generator uses."""
        for option, wanted in (("clamp_mode", "softplus"), ("disparity_space_sampling", False)):
            if (value := rendering.get(option, wanted)) != wanted:
                raise UsageError(f"{name} renders with {option}={value!r}; only {wanted!r} is known here")
        if value := rendering.get("density_noise", 0):
            raise UsageError(f"{name} adds noise of {value} to densities; set density_noise to 0 to render without")
        start, end = rendering["ray_start"], rendering["ray_end"]
        if (start == AUTO) != (end == AUTO):
            raise UsageError(f"{name} has ray_start={start!r} with ray_end={end!r}; 'auto' stands for both or none")
        return cls(
            float(rendering["box_warp"]),
            start if start == AUTO else float(start),
            end if end == AUTO else float(end),
            int(rendering["depth_resolution"]),
            int(rendering["depth_resolution_importance"]),
            bool(rendering.get("white_back", False)),
        )

    def render(
        self,
        planes: Tensor,  # [N, 3, C, H, W]
        decoder: Decoder,
        label: Tensor,  # [N, 25]
        resolution: int,
        *,
        random: torch.Generator | None = None,
        impl: str = "auto",
    ) -> tuple[Tensor, Tensor]:
        """Feature image [N, O, R, R] in [-1, 1], depth [N, 1, R, R].

        Without `random` coarse samples lie in the middle of their steps, fine ones at even quantiles; with it both are
        drawn as in training.
        """
        origins, directions = rays(label, resolution)
        start, end = self._limits(origins, directions)
        shape = origins.shape[:2]
        features, depth, _ = triplane_render(
            planes,
            origins,
            directions,
            decoder.weights(),
            box_warp=self.box_warp,
            ray_start=start,
            ray_end=end,
            depth_resolution=self.coarse,
            depth_resolution_importance=self.fine,
            white_back=self.white_back,
            jitter=_drawn((*shape, self.coarse), random, label),
            u=_drawn((*shape, self.fine), random, label),
            impl=impl,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return _as_image(features, resolution), _as_image(depth, resolution)

    def _limits(self, origins: Tensor, directions: Tensor) -> tuple[float | Tensor, float | Tensor]:
        if isinstance(self.ray_start, str) or isinstance(self.ray_end, str):
            return box_limits(origins, directions, self.box_warp)
        return self.ray_start, self.ray_end


def box_limits(
    origins: Tensor,  # [N, R, 3]
    directions: Tensor,  # [N, R, 3]
    side: float,
) -> tuple[Tensor, Tensor]:
    """Distances [N, R] at which rays enter and leave the box of `side` around the origin.

    A ray that misses it runs from the nearest to the farthest entry of those that do not, as published; where all miss
    it, from -1 to -2.
    """
    near = (-side / 2 - origins) / directions
    far = (side / 2 - origins) / directions
    start, end = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)
    hits = end > start
    if not hits.any():
        return torch.full_like(start, -1), torch.full_like(end, -2)
    entries = start[hits]
    return torch.where(hits, start, entries.amin()), torch.where(hits, end, entries.amax())


def _drawn(shape: tuple[int, ...], random: torch.Generator | None, like: Tensor) -> Tensor | None:
    if random is None or shape[-1] == 0:
        return None
    return torch.rand(shape, generator=random, device=random.device).to(like)


def _as_image(values: Tensor, resolution: int) -> Tensor:
    """[N, R^2, C] -> [N, C, R, R], NHWC in memory."""
    return values.unflatten(1, (resolution, resolution)).permute(0, 3, 1, 2)
