"""EG3D's volume renderer as a module that becomes an ONNX graph.

The formulas, their order, the even quantiles of importance sampling are those of `triplane_render_reference` without
jitter. What differs is the form: samples stay where they were drawn while their weights move into the order of depth
and back, since moving colours would cost 32 times as much; products along a ray are sums of logarithms. All of it is
float32, in half precision, too: depths differ in the fourth digit, light passes 96 samples. A runtime that rounds the
matrix products of float32 to fewer bits (TF32) moves rays by a thousandth, so it has to be told not to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.export.onnx_layers import Layer, Weights
from guide_fast.export.onnx_marching import composite, importance_depths, march_weights
from guide_fast.kernels.triplane_render.triplane_render_reference import PLANE_AXES, WIDEN, coarse_depths
from guide_fast.models.stylegan2_layers import Dense
from guide_fast.models.volume_rendering import Decoder, VolumeRenderer

_FAR = 3e38  # beyond every distance along a ray, yet a number

Rays = Sequence[Tensor]  # x, y, z


class Renderer(Layer):
    """planes [N, 3 * C, H, W], camera label [N, 25] -> features [N, O, R, R] in [-1, 1], depth [N, 1, R, R]."""

    def __init__(
        self, renderer: VolumeRenderer, decoder: Decoder, weights: Weights, name: str, *, resolution: int
    ) -> None:
        super().__init__()
        self.renderer, self.resolution = renderer, resolution
        for layer in ("0", "2"):
            dense = cast(Dense, decoder.net[layer])
            self.keep(f"weight{layer}", weights, f"{name}.net.{layer}.weight", "pointwise", factor=dense.gain)
            self.keep(f"bias{layer}", weights, f"{name}.net.{layer}.bias", factor=dense.lr)
        place = (torch.arange(resolution) + 0.5) / resolution
        y, x = torch.meshgrid(place, place, indexing="ij")
        self.register_buffer("columns", x.reshape(1, -1))  # [1, P], P = R^2, centres of pixels
        self.register_buffer("rows", y.reshape(1, -1))
        self.register_buffer("quantiles", torch.linspace(0, 1, renderer.fine + 2)[1:-1].clone())
        start, end, count = renderer.ray_start, renderer.ray_end, renderer.coarse
        if not isinstance(start, str) and not isinstance(end, str):
            even = coarse_depths(torch.tensor([[start]]), torch.tensor([[end]]), count, None)
            self.register_buffer("even", even.reshape(1, 1, -1).float())
        step = torch.arange(count)
        self.register_buffer("ahead", torch.where(step < count // 2, step, step - (count - 1)).float())
        self.register_buffer("behind", (step >= count // 2))
        self.columns: Tensor
        self.rows: Tensor
        self.quantiles: Tensor
        self.even: Tensor
        self.ahead: Tensor
        self.behind: Tensor
        self.weight0: Tensor
        self.bias0: Tensor
        self.weight2: Tensor
        self.bias2: Tensor

    def forward(
        self,
        planes: Tensor,  # [N, 3 * C, H, W]
        camera: Tensor,  # [N, 25]
    ) -> tuple[Tensor, Tensor]:
        """Features [N, O, R, R], depth [N, 1, R, R]."""
        origins, directions = self._rays(camera)
        coarse, first, last = self._coarse(origins, directions)  # [N, P, S], the range that clips depths
        sigma, colour = self._decode(planes, origins, directions, coarse)
        colours, depths, order = [colour], coarse, None
        if self.renderer.fine:
            fine = importance_depths(coarse, march_weights(coarse, sigma), self.quantiles)
            more, colour = self._decode(planes, origins, directions, fine)
            colours.append(colour)
            count = self.renderer.coarse + self.renderer.fine
            depths, order = torch.topk(torch.cat((coarse, fine), -1), count, dim=-1, largest=False, sorted=True)
            sigma = torch.cat((sigma, more), -1).gather(-1, order)
        features, depth = composite(depths, sigma, colours, order, white_back=self.renderer.white_back)
        depth = torch.minimum(torch.maximum(depth, first), last)
        side = self.resolution
        return features.reshape(-1, features.shape[1], side, side), depth.reshape(-1, 1, side, side)

    def _rays(self, camera: Tensor) -> tuple[Rays, Rays]:
        """Origins [N, 1], unit directions [N, P], as `models.cameras.rays`."""
        pose = camera.narrow(1, 0, 12).reshape(-1, 3, 4)
        fx, skew, cx, _, fy, cy = camera.narrow(1, 16, 6).split(1, dim=1)  # [N, 1] each
        across = (self.columns - cx + cy * skew / fy - skew * self.rows / fy) / fx  # [N, P], at depth 1
        along = (self.rows - cy) / fy
        points = torch.stack((across, along, torch.ones_like(across), torch.ones_like(across)), 1)  # [N, 4, P]
        origins = pose.select(2, 3)  # [N, 3]
        # through the world and back: its rounding is what published weights were rendered with
        seen = torch.matmul(pose, points) - origins.unsqueeze(2)
        directions = seen / (seen * seen).sum(1, keepdim=True).sqrt()
        return tuple(origins.split(1, dim=1)), directions.unbind(1)

    def _coarse(self, origins: Rays, directions: Rays) -> tuple[Tensor, Tensor, Tensor]:
        """Depths [N, P, S] in the middle of even steps, with the first, last depth of all rays."""
        side, count = self.renderer.box_warp, self.renderer.coarse
        if hasattr(self, "even"):
            start, end = float(self.renderer.ray_start), float(self.renderer.ray_end)
            half = (end - start) / (count - 1) / 2
            first, last = (directions[0].new_tensor(bound) for bound in (start + half, end + half))
            return self.even.expand(directions[0].shape[0], self.resolution**2, -1), first, last
        near, far = _box_limits(origins, directions, side)  # [N, P]
        step = (far - near) / (count - 1)
        place = torch.where(self.behind, far.unsqueeze(2), near.unsqueeze(2)) + self.ahead * step.unsqueeze(2)
        return place + 0.5 * step.unsqueeze(2), (near + 0.5 * step).amin((0, 1)), (far + 0.5 * step).amax((0, 1))

    def _decode(self, planes: Tensor, origins: Rays, directions: Rays, depths: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [N, P, S], colour [N, O, P, S] of samples at `depths` [N, P, S]."""
        point = [
            (origin.unsqueeze(2) + direction.unsqueeze(2) * depths) * (2 / self.renderer.box_warp)
            for origin, direction in zip(origins, directions, strict=True)
        ]
        channels = planes.shape[1] // len(PLANE_AXES)
        sampled = [
            F.grid_sample(
                planes.narrow(1, i * channels, channels),
                torch.stack((point[across], point[down]), -1),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )  # [N, C, P, S]
            for i, (across, down) in enumerate(PLANE_AXES)
        ]
        features = (sampled[0] + sampled[1] + sampled[2]) / 3
        hidden = F.softplus(F.conv2d(features, self.weight0, self.bias0))
        out = F.conv2d(hidden, self.weight2, self.bias2)  # [N, 1 + O, P, S]
        colour = torch.sigmoid(out.narrow(1, 1, out.shape[1] - 1)) * (1 + 2 * WIDEN) - WIDEN
        return out.select(1, 0), colour


def _box_limits(origins: Rays, directions: Rays, side: float) -> tuple[Tensor, Tensor]:
    """As `volume_rendering.box_limits`, without a branch: [N, P] distances at which rays enter, leave the box."""
    starts, ends = [], []
    for origin, direction in zip(origins, directions, strict=True):
        near, far = (-side / 2 - origin) / direction, (side / 2 - origin) / direction
        starts.append(torch.minimum(near, far))
        ends.append(torch.maximum(near, far))
    start = torch.maximum(torch.maximum(starts[0], starts[1]), starts[2])
    end = torch.minimum(torch.minimum(ends[0], ends[1]), ends[2])
    hits = end > start
    nearest = torch.where(hits, start, _FAR).amin((0, 1))
    farthest = torch.where(hits, start, -_FAR).amax((0, 1))
    some = nearest < _FAR / 2
    outside = torch.where(some, nearest, -1.0), torch.where(some, farthest, -2.0)
    return torch.where(hits, start, outside[0]), torch.where(hits, end, outside[1])
