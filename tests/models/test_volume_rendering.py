"""Volume rendering is that of every sample in memory, for fixed ray limits, for those of the box."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_config, tiny_eg3d
from torch import Tensor

from guide_fast.bench.baselines.grid_sample_render import grid_sample_render
from guide_fast.errors import UsageError
from guide_fast.models.cameras import rays
from guide_fast.models.eg3d import EG3D
from guide_fast.models.volume_rendering import box_limits


@pytest.fixture(scope="module")
def tiny() -> EG3D:
    return tiny_eg3d()


def latents(generator: EG3D) -> Tensor:
    return seeded(1, generator.num_ws, generator.w_dim, seed=3)


def assert_near(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == wanted.shape
    worst = ((found - wanted).abs().max() / (wanted.max() - wanted.min())).item()
    assert worst <= tolerance, f"off by {worst} of the range, {tolerance} is allowed"


def test_assert_near_can_fail() -> None:
    wanted = torch.tensor([0.0, 2.0])
    assert_near(wanted + 1e-4, wanted)
    for wrong in (wanted + 3e-4, torch.tensor([0.0, float("nan")])):
        with pytest.raises(AssertionError):
            assert_near(wrong, wanted)


@torch.no_grad()
def test_raw_image_is_that_of_every_sample_in_memory(tiny: EG3D) -> None:
    ws, c = latents(tiny), tiny.cameras.orbit(0.2, -0.1)[None]
    found = tiny.synthesis(ws, c, resolution=32)
    assert found.planes is not None
    origins, directions = rays(c, 32)
    planes = found.planes.unflatten(1, (3, -1))
    options = {"start": 2.25, "end": 3.3, "coarse": 8, "fine": 8}
    wanted = grid_sample_render(planes, origins, directions, tiny.decoder.weights(), **options)
    assert_near(found.features, wanted.mT.reshape(1, 32, 32, 32))


def test_gradients_to_planes_are_the_references(tiny: EG3D) -> None:
    planes = tiny.synthesis(latents(tiny), resolution=32).planes
    assert planes is not None
    label, gy = tiny.cameras.frontal[None], seeded(1, 32, 16, 16, seed=5)
    found = []
    for impl in ("auto", "reference"):
        leaf = planes.clone().requires_grad_()
        features, depth = tiny.renderer.render(leaf.unflatten(1, (3, -1)), tiny.decoder, label, 16, impl=impl)
        found += torch.autograd.grad((features * gy).sum() + depth.sum(), leaf)
    assert_near(found[0], found[1], 1e-4)


@pytest.mark.parametrize("white_back", [False, True])
def test_rays_limited_by_the_box_see_the_same_inside(white_back: bool) -> None:
    options = {"depth_resolution": 48, "depth_resolution_importance": 48, "white_back": white_back}
    fixed, box = tiny_eg3d(**options), tiny_eg3d(**options, ray_start="auto", ray_end="auto")
    ws = latents(fixed)
    with torch.no_grad():
        a, b = fixed.synthesis(ws, resolution=32).image, box.synthesis(ws, resolution=32).image
    assert (a - b).abs().mean() < 0.1 * a.std()
    assert not torch.equal(a, b)


@pytest.mark.parametrize(
    ("rendering", "message"),
    [
        ({"clamp_mode": "relu"}, "clamp_mode='relu'"),
        ({"disparity_space_sampling": True}, "disparity_space_sampling=True"),
        ({"density_noise": 0.5}, "noise of 0.5"),
        ({"ray_start": "auto"}, "both or none"),
    ],
)
def test_options_of_no_published_generator_are_refused(rendering: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EG3D(tiny_config(**rendering))


def test_box_limits_are_where_rays_meet_the_box() -> None:
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.1, 0.2, 3.0], [5.0, 0.0, 2.0]]])
    directions = torch.tensor([[[0.01, 0.02, -1.0], [0.0001, 0.0001, -1.0], [0.01, 0.01, -1.0]]])
    start, end = box_limits(origins, directions, 1.0)
    assert torch.allclose(start[0, :2], torch.tensor([1.5, 2.5]))
    assert torch.allclose(end[0, :2], torch.tensor([2.5, 3.5]))
    assert (start[0, 2], end[0, 2]) == (start[0, 0], start[0, 1]), "a ray that misses spans the others' entries"
    missed = box_limits(origins[:, 2:], directions[:, 2:], 1.0)
    assert [t.item() for t in missed] == [-1, -2]
