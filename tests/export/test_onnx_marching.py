"""What happens along a ray agrees with the operation's reference."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded

from guide_fast.export.onnx_marching import composite, count_up_to, importance_depths, march_weights
from guide_fast.kernels.triplane_render import triplane_render_reference as reference


def ray_depths(count: int, seed: int = 0) -> torch.Tensor:
    return 2 + torch.rand(2, 7, count, generator=torch.Generator().manual_seed(seed)).sort(-1).values


@pytest.mark.parametrize("density", [-30.0, 0.0, 5.0, 60.0])
def test_weights_agree_from_empty_to_solid(density: float) -> None:
    depths, sigma = ray_depths(24), density + seeded(2, 7, 24, seed=1) * 5
    expected = reference.march_weights(depths, sigma)
    assert torch.allclose(march_weights(depths, sigma), expected, atol=3e-6)


@pytest.mark.parametrize(("coarse", "fine"), [(4, 1), (9, 6), (48, 48)])
def test_importance_depths_agree(coarse: int, fine: int) -> None:
    depths = ray_depths(coarse)
    weights = reference.march_weights(depths, seeded(2, 7, coarse, seed=2) * 8)
    quantiles = torch.linspace(0, 1, fine + 2)[1:-1]
    expected = reference.importance_depths(depths, weights, fine, None)
    assert torch.allclose(importance_depths(depths, weights, quantiles), expected, atol=2e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 46])
def test_counting_is_a_search_to_the_right_of_equals(count: int) -> None:
    ascending = torch.rand(2, 5, count, generator=torch.Generator().manual_seed(count)).sort(-1).values
    values = torch.cat((torch.tensor([0.0, 1.0]), ascending[0, 0])).sort().values
    expected = torch.searchsorted(ascending, values.expand(2, 5, -1).contiguous(), right=True)
    assert torch.equal(count_up_to(ascending, values), expected)


@pytest.mark.parametrize("white_back", [False, True])
def test_compositing_in_the_order_drawn_is_compositing_in_order(white_back: bool) -> None:
    drawn = torch.rand(2, 7, 11, generator=torch.Generator().manual_seed(1)) + 2
    sigma, colour = seeded(2, 7, 11, seed=2) * 4, torch.sigmoid(seeded(2, 5, 7, 11, seed=3))
    depths, order = drawn.sort(-1)
    sigma = sigma.gather(-1, order)
    in_order = colour.gather(-1, order[:, None].expand(-1, 5, -1, -1))
    expected, depth = composite(depths, sigma, [in_order], None, white_back=white_back)
    found, other = composite(depths, sigma, [colour[..., :4], colour[..., 4:]], order, white_back=white_back)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(other, depth)
