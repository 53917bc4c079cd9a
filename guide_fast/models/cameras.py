"""Cameras of 3D generators: poses on an orbit, the labels that carry them, the rays of their pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_fast.errors import UsageError

LABEL = 25  # 4 x 4 camera-to-world matrix, then 3 x 3 intrinsics, both row by row
FOV = 18.837  # degrees, along the diagonal
PITCH = -0.2  # offset of the paper's cameras from the horizon, in radians
YAW = math.pi / 12  # and how far they turn to either side
VIEWS = 11  # yaws over which metrics are taken

# EG3D makes intrinsics with these roundings of pi and of the square root of 2; trained labels carry them
_PI, _DIAGONAL = 3.14159, 1.414


@dataclass(frozen=True)
class Cameras:
    """Cameras that look at `pivot` from `radius` around the origin; y points up, z at the frontal camera.

    Labels [..., 25] are float32 on the CPU. Source: EG3D (arXiv 2112.07945); yaw, pitch, radius, field of view of
    `draw` as GUIDE (arXiv 2405.09879) draws them.
    """

    pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)
    radius: float = 2.7
    fov: float = FOV

    @classmethod
    def from_rendering(cls, rendering: Mapping[str, Any]) -> Cameras:
        """What a checkpoint's rendering options say about its average camera."""
        usual = cls()
        x, y, z = rendering.get("avg_camera_pivot", usual.pivot)
        return cls((float(x), float(y), float(z)), float(rendering.get("avg_camera_radius", usual.radius)))

    @property
    def conditioning(self) -> Tensor:
        """The average frontal label [25], with which latents are mapped."""
        return self.orbit()

    @property
    def frontal(self) -> Tensor:
        """The label [25] from which an image is taken when none is given: the paper's pitch, no yaw."""
        return self.orbit(pitch=PITCH)

    @property
    def evaluation(self) -> Tensor:
        """Labels [11, 25] of the views that metrics average over: yaws evenly within 15 degrees to either side."""
        return self.orbit(torch.linspace(-YAW, YAW, VIEWS), PITCH)

    def orbit(
        self,
        yaw: float | Sequence[float] | Tensor = 0.0,
        pitch: float | Sequence[float] | Tensor = 0.0,
        radius: float | None = None,
        fov: float | None = None,
    ) -> Tensor:
        """Labels [..., 25] of cameras turned by `yaw`, `pitch` (radians, broadcast against each other).

        Positive yaw moves the camera towards +x (to its right), negative pitch moves it up. `radius`, `fov` (degrees)
        default to the generator's own. As published, the cosine of the polar angle goes evenly with pitch: -0.2 are
        -0.1277 rad of it.
        """
        turned, tilted = torch.broadcast_tensors(_angles(yaw), _angles(pitch))
        distance = self.radius if radius is None else float(radius)
        if not distance > 0:
            raise UsageError(f"radius={distance} of the camera is not positive; {self.radius} is this generator's own")
        azimuth = math.pi / 2 + turned
        share = (math.pi / 2 + tilted).clamp(1e-5, math.pi - 1e-5) / math.pi
        polar = torch.arccos(1 - 2 * share)
        origin = distance * torch.stack(
            (polar.sin() * torch.cos(math.pi - azimuth), polar.cos(), polar.sin() * torch.sin(math.pi - azimuth)), -1
        )
        pose = look_at(origin, torch.tensor(self.pivot, dtype=origin.dtype))
        return label_from_pose(pose, intrinsics(self.fov if fov is None else fov).to(pose)).float()

    def draw(self, random: torch.Generator, count: int = 1) -> Tensor:
        """Labels [count, 25] of the paper's random cameras: yaw uniform within 15 degrees, pitch fixed."""
        share = torch.rand(count, generator=random, device=random.device).cpu()
        return self.orbit((2 * share - 1) * YAW, PITCH)


def look_at(
    origin: Tensor,  # [..., 3]
    target: Tensor,  # [3] or [..., 3]
) -> Tensor:
    """Camera-to-world matrices [..., 4, 4] without roll: columns right, down, forward, origin."""
    forward = _unit(target - origin)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=origin.dtype).expand_as(forward)
    right = -_unit(torch.linalg.cross(up, forward))
    down = _unit(torch.linalg.cross(forward, right))
    top = torch.cat((torch.stack((right, down, forward), -1), origin[..., None]), -1)  # [..., 3, 4]
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=origin.dtype).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, last), -2)


def intrinsics(fov: float) -> Tensor:
    """The 3 x 3 matrix in units of the image's side, for a field of view in degrees, as EG3D rounds it."""
    if not 0 < fov < 180:
        raise UsageError(f"fov={fov} degrees is no field of view; give a number between 0 and 180 (EG3D: {FOV})")
    focal = 1 / (math.tan(fov * _PI / 360) * _DIAGONAL)
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def label_from_pose(
    pose: Tensor,  # [..., 4, 4] camera to world
    matrix: Tensor,  # [3, 3] or [..., 3, 3]
) -> Tensor:
    """Labels [..., 25]; raises UsageError on other shapes."""
    if pose.shape[-2:] != (4, 4) or matrix.shape[-2:] != (3, 3):
        raise UsageError(
            f"a camera is a 4 x 4 pose with 3 x 3 intrinsics; these have shapes {tuple(pose.shape)}, "
            f"{tuple(matrix.shape)}"
        )
    return torch.cat((pose.flatten(-2), matrix.expand(*pose.shape[:-2], 3, 3).flatten(-2)), -1)


def rays(
    label: Tensor,  # [N, 25]
    resolution: int,
) -> tuple[Tensor, Tensor]:
    """Origins, unit directions [N, resolution^2, 3] of the pixels' centres, row by row, in the label's dtype."""
    pose, matrix = label[:, :16].unflatten(1, (4, 4)), label[:, 16:].unflatten(1, (3, 3))
    place = (torch.arange(resolution, dtype=label.dtype, device=label.device) + 0.5) / resolution
    y, x = torch.meshgrid(place, place, indexing="ij")
    x, y = x.flatten(), y.flatten()  # [R^2]
    fx, fy, cx, cy, skew = (matrix[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1)))
    across = (x - cx + cy * skew / fy - skew * y / fy) / fx  # [N, R^2], at depth 1
    along = (y - cy) / fy
    points = torch.stack((across, along, torch.ones_like(across), torch.ones_like(across)), -1)
    origins = pose[:, None, :3, 3]
    # through the world and back: its rounding is what published weights were rendered with
    directions = _unit((pose @ points.mT).mT[..., :3] - origins)
    return origins.expand_as(directions).contiguous(), directions


def _angles(value: float | Sequence[float] | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
