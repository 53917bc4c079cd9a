"""The reference of triplane_render: gradients, formulas, limits of its range."""

from __future__ import annotations

import contract
import numpy as np
import pytest
import torch

from guide_fast.kernels import triplane_render
from guide_fast.kernels.triplane_render.triplane_render_reference import importance_depths, march_weights

from . import ray_by_ray
from .scene import SCENES, Scene


@pytest.mark.parametrize("white_back", [False, True])
def test_reference_gradients_match_finite_differences(white_back: bool) -> None:
    # without fine samples: their depths move with the planes, and carry no gradient by definition
    scene = Scene(1, 2, 3, 4, 5, 0)
    inputs = scene.tensors(torch.float64, channels=3, hidden=4, out=2)
    contract.assert_gradcheck(lambda *t: scene.render(*t, white_back=white_back, impl="reference"), inputs)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("drawn", [False, True])
def test_reference_is_the_formula(name: str, drawn: bool) -> None:
    scene = SCENES[name]
    tensors = scene.tensors(torch.float64)
    settings = {"box_warp": 1.3, "ray_start": 2.1, "ray_end": 3.5, "white_back": drawn}
    draws = scene.draws() if drawn else {}
    got = scene.render(*tensors, **settings, **draws, impl="reference")
    planes, *decoder = (t.cpu().numpy() for t in tensors)
    origins, directions = (t.double().cpu().numpy() for t in scene.rays_into_the_box())
    jitter = np.full((scene.n, scene.rays, scene.coarse), 0.5)
    u = np.broadcast_to((np.arange(scene.fine) + 1) / (scene.fine + 1), (scene.n, scene.rays, scene.fine))
    if drawn:
        jitter, u = draws["jitter"][..., 0].double().cpu().numpy(), draws["u"].double().cpu().numpy()
    for i in range(scene.n):
        for r in range(scene.rays):
            want = ray_by_ray.render(
                planes[i],
                origins[i, r],
                directions[i, r],
                decoder,
                jitter[i, r],
                u[i, r],
                near=2.1,
                far=3.5,
                box_warp=1.3,
                white_back=drawn,
            )
            assert np.allclose(got[i, r].cpu().numpy(), np.concatenate([want[0], want[1:]]), atol=1e-9, rtol=1e-9)


def test_limits_may_differ_by_ray() -> None:
    scene = SCENES["odd"]
    tensors = scene.tensors(torch.float64)
    near = torch.full((scene.n, scene.rays, 1), 2.1, dtype=torch.float64, device=contract.DEVICE)
    near[0, 1] = 2.4
    got = scene.render(*tensors, ray_start=near, ray_end=near + 1, impl="reference")
    one, other = (scene.render(*tensors, ray_start=s, ray_end=s + 1, impl="reference") for s in (2.1, 2.4))
    assert torch.allclose(got[0, 1], other[0, 1], atol=1e-12) and torch.allclose(got[1], one[1], atol=1e-12)


def test_quantiles_come_in_both_published_shapes() -> None:
    scene = SCENES["odd"]
    tensors, draws = scene.tensors(), scene.draws()
    one = scene.render(*tensors, **draws, impl="reference")
    draws["u"] = draws["u"].flatten(0, 1)
    assert torch.equal(one, scene.render(*tensors, **draws, impl="reference"))


def test_fine_samples_go_where_the_weight_is() -> None:
    depths = torch.linspace(0, 1, 21, dtype=torch.float64)[None]
    sigma = torch.full_like(depths, -30.0)
    sigma[0, 10:] = 500.0
    more = importance_depths(depths, march_weights(depths, sigma), 50, None)
    assert ((more - 0.475).abs() < 0.08).double().mean() > 0.7


@pytest.mark.parametrize("impl", ["reference", "auto"])
def test_ray_that_meets_nothing_ends_at_the_last_sample(impl: str) -> None:
    scene = SCENES["odd"]
    planes, w1, b1, w2, b2 = scene.tensors()
    b2 = b2.clone()
    b2[0] = -1e4
    leaves = [t.requires_grad_() for t in (planes, w1, b1, w2, b2)]
    features, depth, total = triplane_render(
        planes,
        *scene.rays_into_the_box(),
        (w1, b1, w2, b2),
        depth_resolution=scene.coarse,
        depth_resolution_importance=scene.fine,
        impl=impl,
    )
    assert (features == -1).all() and (total == 0).all()
    step = (3.3 - 2.25) / (scene.coarse - 1)
    assert torch.allclose(depth, torch.full_like(depth, 3.3 + step / 2))
    grads = torch.autograd.grad((features.sum() + depth.sum() + total.sum()), leaves)
    assert all(g.isfinite().all() for g in grads)
