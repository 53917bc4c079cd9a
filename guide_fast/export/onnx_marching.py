"""What happens along a ray, in operations that ONNX has: weights, importance sampling, compositing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels.triplane_render.triplane_render_reference import FLOOR, LEAK, SMALLEST

_BEYOND = 2.0  # above every value of a cumulated density


def march_weights(depths: Tensor, sigma: Tensor) -> Tensor:
    """[..., S] depths, raw densities -> [..., S - 1] weights of the intervals between them."""
    thickness = F.softplus((sigma[..., 1:] + sigma[..., :-1]) / 2 - 1) * (depths[..., 1:] - depths[..., :-1])
    clear = torch.exp(-thickness)
    # a product along the ray, which ONNX lacks: light falls below the smallest float only where it is nothing
    through = (clear[..., :-1] + LEAK).log().cumsum(-1).exp()
    return (1 - clear) * torch.cat((torch.ones_like(clear[..., :1]), through), -1)


def importance_depths(
    depths: Tensor,  # [N, P, S]
    weights: Tensor,  # [N, P, S - 1]
    quantiles: Tensor,  # [F], ascending
) -> Tensor:
    """[N, P, F] depths where the smoothed weights' cumulated density reaches the quantiles."""
    largest = torch.cat((weights[..., :1], torch.maximum(weights[..., :-1], weights[..., 1:]), weights[..., -1:]), -1)
    smooth = (largest[..., :-1] + largest[..., 1:]) / 2 + FLOOR
    mass = smooth[..., 1:-1] + SMALLEST
    cdf = (mass / mass.sum(-1, keepdim=True)).cumsum(-1)
    cdf = torch.cat((torch.zeros_like(cdf[..., :1]), cdf), -1)  # [N, P, S - 2]
    mid = (depths[..., 1:] + depths[..., :-1]) / 2
    above = count_up_to(cdf, quantiles)  # from 1 on, since the first is 0
    below, above = above - 1, above.clamp_max(cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    width = torch.where(high - low < SMALLEST, 1.0, high - low)
    start, end = mid.gather(-1, below), mid.gather(-1, above)
    return start + (quantiles - low) / width * (end - start)


def count_up_to(
    ascending: Tensor,  # [N, P, M], below 2
    values: Tensor,  # [F]
) -> Tensor:
    """How many of the M numbers are at most each value, [N, P, F]: a binary search of log2(M) gathers."""
    steps = ascending.shape[-1].bit_length()
    missing = 2**steps - 1 - ascending.shape[-1]
    padded = F.pad(ascending, (0, missing), value=_BEYOND)
    count = torch.zeros_like(ascending[..., :1] + values, dtype=torch.int64)
    for step in (1 << i for i in reversed(range(steps))):
        reached = padded.gather(-1, count + (step - 1)) <= values
        count = count + reached.to(torch.int64) * step
    return count


def composite(
    depths: Tensor,  # [N, P, T], ascending
    sigma: Tensor,  # [N, P, T], in that order
    colours: Sequence[Tensor],  # [N, O, P, *] each, T together, as they were drawn
    order: Tensor | None,  # [N, P, T]: which one drawn is the k-th in depth; None: they were drawn in order
    *,
    white_back: bool,
) -> tuple[Tensor, Tensor]:
    """Features [N, O, P] in [-1, 1], depth [N, P] (beyond everything where a ray met nothing)."""
    weights = march_weights(depths, sigma)  # [N, P, T - 1]
    total = weights.sum(-1)
    none = torch.zeros_like(weights[..., :1])
    # an interval has the mean colour of its ends, so a sample counts half of either interval beside it
    share = (torch.cat((weights, none), -1) + torch.cat((none, weights), -1)) / 2
    if order is not None:
        share = torch.zeros_like(share).scatter(-1, order, share)
    shares = share.split([colour.shape[-1] for colour in colours], -1)
    parts = [(colour * part.unsqueeze(1)).sum(-1) for colour, part in zip(colours, shares, strict=True)]
    features = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    if white_back:
        features = features + (1 - total).unsqueeze(1)
    mid = (depths[..., 1:] + depths[..., :-1]) / 2
    some = total > 0
    depth = torch.where(some, (weights * mid).sum(-1) / torch.where(some, total, 1.0), 3e38)
    return features * 2 - 1, depth
