"""Cameras look at their pivot from where they are told, labels carry them, rays meet their pixels."""

from __future__ import annotations

import math

import pytest
import torch

from guide_fast.errors import UsageError
from guide_fast.models.cameras import FOV, PITCH, YAW, Cameras, intrinsics, label_from_pose, look_at, rays

CAMERAS = Cameras()


def pose_of(label: torch.Tensor) -> torch.Tensor:
    return label[..., :16].unflatten(-1, (4, 4))


def test_average_camera_stands_in_front() -> None:
    pose = pose_of(CAMERAS.conditioning)
    assert torch.allclose(pose[:3, 3], torch.tensor([0.0, 0.0, 2.7]), atol=1e-6)
    assert torch.allclose(pose[:3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])), atol=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.4, -0.2), (-0.7, 0.3)])
def test_every_camera_looks_at_its_pivot(yaw: float, pitch: float) -> None:
    pose = pose_of(CAMERAS.orbit(yaw, pitch)).double()
    assert math.isclose(pose[:3, 3].norm().item(), CAMERAS.radius, rel_tol=1e-6)
    towards = torch.tensor(CAMERAS.pivot, dtype=torch.float64) - pose[:3, 3]
    assert torch.allclose(pose[:3, 2], towards / towards.norm(), atol=1e-6)
    assert torch.allclose(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3, dtype=torch.float64), atol=1e-6)
    assert math.isclose(torch.linalg.det(pose).item(), 1, abs_tol=1e-6)
    assert abs(pose[1, 0]) < 1e-6, "the horizon is not level"


def test_positive_yaw_goes_right_negative_pitch_up() -> None:
    assert pose_of(CAMERAS.orbit(0.3))[0, 3] > 0
    assert pose_of(CAMERAS.orbit(pitch=-0.3))[1, 3] > 0


def test_orbit_takes_many_at_once() -> None:
    labels = CAMERAS.orbit([-0.1, 0.0, 0.1], -0.2, radius=2.0, fov=30)
    assert labels.shape == (3, 25)
    assert torch.equal(labels[2], CAMERAS.orbit(0.1, -0.2, 2.0, 30))
    assert torch.allclose(pose_of(labels)[:, :3, 3].norm(dim=-1), torch.tensor(2.0))


def test_published_field_of_view_gives_the_published_focal_length() -> None:
    matrix = intrinsics(FOV)
    assert math.isclose(matrix[0, 0].item(), 4.2634, abs_tol=1e-4)
    assert matrix[:2, 2].tolist() == [0.5, 0.5]


def test_drawn_cameras_are_those_of_the_paper() -> None:
    drawn = CAMERAS.draw(torch.Generator().manual_seed(0), 200)
    again = CAMERAS.draw(torch.Generator().manual_seed(0), 200)
    assert torch.equal(drawn, again)
    place = pose_of(drawn)[:, :3, 3]
    yaw = torch.atan2(place[:, 0], place[:, 2])
    assert -YAW <= yaw.min() < -0.9 * YAW
    assert 0.9 * YAW < yaw.max() <= YAW
    assert torch.allclose(place[:, 1], pose_of(CAMERAS.orbit(pitch=PITCH))[1, 3].expand(200))


def test_metrics_take_eleven_views_around_the_frontal_one() -> None:
    views = CAMERAS.evaluation
    assert views.shape == (11, 25)
    assert torch.allclose(views[5], CAMERAS.frontal, atol=1e-6)
    place = pose_of(views)[:, :3, 3]
    assert torch.allclose(torch.atan2(place[:, 0], place[:, 2]), torch.linspace(-YAW, YAW, 11), atol=1e-5)


def test_rendering_options_move_the_average_camera() -> None:
    cameras = Cameras.from_rendering({"avg_camera_radius": 1.7, "avg_camera_pivot": [0, 0, 0]})
    assert (cameras.radius, cameras.pivot) == (1.7, (0.0, 0.0, 0.0))
    assert Cameras.from_rendering({}) == CAMERAS


@pytest.mark.parametrize("size", [1, 7, 32])
def test_rays_run_row_by_row_through_the_pixels(size: int) -> None:
    label = CAMERAS.orbit(0.3, -0.1)[None].double()
    origins, directions = rays(label, size)
    assert origins.shape == directions.shape == (1, size * size, 3)
    seen = directions[0] @ pose_of(label)[0, :3, :3]  # right, down, forward
    place = (seen[:, :2] / seen[:, 2:]) * label[0, 16] + 0.5
    wanted = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    assert torch.allclose(place[:, 0].reshape(size, size), wanted.expand(size, size), atol=1e-6)
    assert torch.allclose(place[:, 1].reshape(size, size), wanted[:, None].expand(size, size), atol=1e-6)


def test_skewed_rays_are_the_inverse_of_the_projection() -> None:
    matrix = torch.tensor([[2.0, 0.3, 0.4], [0.0, 2.5, 0.6], [0.0, 0.0, 1.0]], dtype=torch.float64)
    pose = look_at(torch.tensor([0.5, 0.2, 2.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    _, directions = rays(label_from_pose(pose, matrix)[None], 4)
    seen = directions[0] @ pose[:3, :3] @ matrix.T
    wanted = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    assert torch.allclose((seen[:, 0] / seen[:, 2]).reshape(4, 4), wanted.expand(4, 4))
    assert torch.allclose((seen[:, 1] / seen[:, 2]).reshape(4, 4), wanted[:, None].expand(4, 4))


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(UsageError, match="radius=0"):
        CAMERAS.orbit(radius=0)
    with pytest.raises(UsageError, match="fov=180"):
        CAMERAS.orbit(fov=180)
    with pytest.raises(UsageError, match="4 x 4 pose"):
        label_from_pose(torch.eye(3), torch.eye(3))
