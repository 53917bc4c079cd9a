"""triplane_render in plain PyTorch: grid_sample on every sample, all of them in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PLANE_AXES = ((0, 1), (0, 2), (2, 0))  # what runs along a plane's width, height: (x, y), (x, z), (z, x), as published
WIDEN = 0.001  # colours may leave [0, 1] by this much
LEAK = 1e-10  # of light through an opaque sample, so that no product becomes zero
FLOOR = 0.01  # added to every smoothed weight: some samples go everywhere
SMALLEST = 1e-5  # added again before the weights become a density; a narrower step of the CDF counts as 1

Decoder = tuple[Tensor, Tensor, Tensor, Tensor]  # w1 [K, C], b1 [K], w2 [1 + O, K], b2 [1 + O]


def triplane_render_reference(
    planes: Tensor,  # [N, 3, C, H, W]
    origins: Tensor,  # [N, R, 3]
    directions: Tensor,  # [N, R, 3]
    decoder: Decoder,
    near: Tensor,  # [N, R]
    far: Tensor,  # [N, R]
    *,
    box_warp: float,
    coarse: int,
    fine: int,
    white_back: bool,
    jitter: Tensor | None,  # [N, R, coarse]
    u: Tensor | None,  # [N, R, fine]
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, R, O] in planes' dtype, depth [N, R, 1], sum of weights [N, R, 1] in the rays' dtype.

    Differentiable in the planes, the decoder; depths carry no gradient. Half precision is that of the decoder alone:
    positions, marching are in the rays' dtype.
    """
    depths = coarse_depths(near, far, coarse, jitter)
    sigma, colour = _decode(planes, origins, directions, depths, decoder, box_warp)
    if fine:
        with torch.no_grad():
            more = importance_depths(depths, march_weights(depths, sigma), fine, u)
        more_sigma, more_colour = _decode(planes, origins, directions, more, decoder, box_warp)
        depths, order = torch.cat([depths, more], -1).sort(-1)
        sigma = torch.cat([sigma, more_sigma], -1).gather(-1, order)
        colour = torch.cat([colour, more_colour], -2).gather(
            -2, order[..., None].expand(*order.shape, colour.shape[-1])
        )
    weights = march_weights(depths, sigma)
    total = weights.sum(-1, keepdim=True)
    features = (weights[..., None] * (colour[..., 1:, :] + colour[..., :-1, :]) / 2).sum(-2)
    if white_back:
        features = features + 1 - total
    mid = (depths[..., 1:] + depths[..., :-1]) / 2
    some = total > 0
    depth = torch.where(some, (weights * mid).sum(-1, keepdim=True) / torch.where(some, total, 1), torch.inf)
    return (features * 2 - 1).to(planes.dtype), clip_depth(depth, near, far, coarse, jitter), total


def coarse_depths(near: Tensor, far: Tensor, count: int, jitter: Tensor | None) -> Tensor:
    """[N, R, count]: evenly from near to far, each moved on by its jitter of a step; rounded as torch.linspace does."""
    step = ((far - near) / (count - 1))[..., None]
    place = torch.arange(count, dtype=torch.float64, device=near.device)
    ahead, behind = near[..., None] + place * step, far[..., None] - (count - 1 - place) * step  # rounded once, below
    even = torch.where(place < count // 2, ahead, behind).to(near.dtype)
    return even + (0.5 if jitter is None else jitter) * step


def march_weights(depths: Tensor, sigma: Tensor) -> Tensor:
    """[..., S] depths, raw densities -> [..., S - 1] weights of the intervals between them."""
    density = F.softplus((sigma[..., 1:] + sigma[..., :-1]) / 2 - 1)
    alpha = 1 - torch.exp(-density * (depths[..., 1:] - depths[..., :-1]))
    through = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + LEAK], -1).cumprod(-1)
    return alpha * through[..., :-1]


def importance_depths(depths: Tensor, weights: Tensor, count: int, u: Tensor | None) -> Tensor:
    """[..., count] depths where the smoothed weights' cumulated density is u, unsorted."""
    if u is None:
        u = torch.linspace(0, 1, count + 2, dtype=depths.dtype, device=depths.device)[1:-1]
        u = u.expand(*depths.shape[:-1], count)
    flat = weights.reshape(-1, 1, weights.shape[-1])
    smooth = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1).reshape(weights.shape) + FLOOR
    mass = smooth[..., 1:-1] + SMALLEST
    cdf = (mass / mass.sum(-1, keepdim=True)).cumsum(-1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)
    mid = (depths[..., 1:] + depths[..., :-1]) / 2  # one more than the CDF has: the last is never reached, as published
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    width = torch.where(high - low < SMALLEST, 1, high - low)
    start, end = mid.gather(-1, below), mid.gather(-1, above)
    return start + (u - low) / width * (end - start)


def clip_depth(depth: Tensor, near: Tensor, far: Tensor, count: int, jitter: Tensor | None) -> Tensor:
    """Depth within the range that all rays' samples span; infinite depth, of rays that met nothing, becomes its end."""
    step = (far - near) / (count - 1)
    first, last = (0.5, 0.5) if jitter is None else (jitter[..., 0], jitter[..., -1])
    return torch.clamp(depth, (near + first * step).amin(), (far + last * step).amax())


def _decode(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, decoder: Decoder, box_warp: float
) -> tuple[Tensor, Tensor]:
    """Raw density [N, R, S], colour [N, R, S, O] of the samples."""
    n, r, s = depths.shape
    points = (origins[:, :, None] + directions[:, :, None] * depths[..., None]) * (2 / box_warp)
    grid = torch.stack([points[..., axes] for axes in PLANE_AXES], 1).flatten(0, 1)  # [N * 3, R, S, 2]
    sampled = F.grid_sample(planes.flatten(0, 1).to(grid.dtype), grid, align_corners=False)  # [N * 3, C, R, S]
    features = sampled.unflatten(0, (n, 3)).mean(1).movedim(1, -1).to(planes.dtype)
    w1, b1, w2, b2 = decoder
    out = F.linear(F.softplus(F.linear(features, w1, b1)), w2, b2).to(depths.dtype)
    return out[..., 0], torch.sigmoid(out[..., 1:]) * (1 + 2 * WIDEN) - WIDEN
