"""EG3D's renderer un-fused: every sample's features, hidden units, colours are tensors of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def grid_sample_render(
    planes: Tensor,  # [N, 3, C, H, W]
    origins: Tensor,  # [N, R, 3]
    directions: Tensor,  # [N, R, 3]
    decoder: tuple[Tensor, Tensor, Tensor, Tensor],  # w1 [K, C], b1 [K], w2 [1 + O, K], b2 [1 + O]
    *,
    start: float,
    end: float,
    coarse: int,
    fine: int,
    box_warp: float = 1.0,
) -> Tensor:
    """Features [N, R, O] in [-1, 1]: coarse samples in the middle of their steps, fine ones at even quantiles."""
    n, r, _ = origins.shape
    depths = torch.linspace(start, end, coarse, dtype=origins.dtype, device=origins.device) + 0.5 * (end - start) / (
        coarse - 1
    )
    depths = depths.expand(n, r, coarse)
    sigma, colour = _decode(planes, origins, directions, depths, decoder, box_warp)
    weights = _weights(depths, sigma)
    more = _importance(depths, weights, fine)
    more_sigma, more_colour = _decode(planes, origins, directions, more, decoder, box_warp)
    depths, order = torch.cat((depths, more), -1).sort(-1)
    sigma = torch.cat((sigma, more_sigma), -1).gather(-1, order)
    colour = torch.cat((colour, more_colour), -2)
    colour = colour.gather(-2, order[..., None].expand_as(colour))
    weights = _weights(depths, sigma)
    middles = (colour[..., 1:, :] + colour[..., :-1, :]) / 2
    return (weights[..., None] * middles).sum(-2) * 2 - 1


def _decode(
    planes: Tensor, origins: Tensor, directions: Tensor, depths: Tensor, decoder: tuple[Tensor, ...], box_warp: float
) -> tuple[Tensor, Tensor]:
    """Raw density [N, R, S], colours [N, R, S, O]."""
    n, r, s = depths.shape
    points = (origins[:, :, None] + depths[..., None] * directions[:, :, None]).reshape(n, r * s, 3) * (2 / box_warp)
    on_planes = torch.stack((points[..., [0, 1]], points[..., [0, 2]], points[..., [2, 0]]), 1)  # [N, 3, R S, 2]
    features = F.grid_sample(planes.flatten(0, 1), on_planes.flatten(0, 1)[:, None], align_corners=False)
    features = features.reshape(n, 3, -1, r * s).mean(1).transpose(1, 2)  # [N, R S, C]
    w1, b1, w2, b2 = decoder
    out = F.linear(F.softplus(F.linear(features, w1, b1)), w2, b2).reshape(n, r, s, -1)
    return out[..., 0], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


def _weights(depths: Tensor, sigma: Tensor) -> Tensor:
    """[N, R, S - 1]."""
    density = F.softplus((sigma[..., 1:] + sigma[..., :-1]) / 2 - 1)
    alpha = 1 - torch.exp(-density * (depths[..., 1:] - depths[..., :-1]))
    light = torch.cat((torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10), -1).cumprod(-1)
    return alpha * light[..., :-1]


@torch.no_grad()
def _importance(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    """[N, R, count] depths at even quantiles of the smoothed weights."""
    padded = F.pad(weights, (1, 1), value=-torch.inf)
    largest = torch.maximum(padded[..., 1:], padded[..., :-1])  # [N, R, S]
    smooth = (largest[..., 1:] + largest[..., :-1]) / 2 + 0.01
    mass = smooth[..., 1:-1] + 1e-5
    cdf = F.pad((mass / mass.sum(-1, keepdim=True)).cumsum(-1), (1, 0))
    u = (
        torch.linspace(0, 1, count + 2, dtype=cdf.dtype, device=cdf.device)[1:-1]
        .expand(*depths.shape[:-1], count)
        .contiguous()
    )
    above = torch.searchsorted(cdf, u, right=True)
    below, above = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    middles = (depths[..., 1:] + depths[..., :-1]) / 2
    first, last = middles.gather(-1, below), middles.gather(-1, above)
    width = torch.where(high - low < 1e-5, 1, high - low)
    return first + (u - low) / width * (last - first)
