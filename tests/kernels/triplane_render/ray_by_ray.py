"""One ray rendered once more from the formulas, by loops over samples in fp64: what the reference is held to."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def bilinear(plane: Array, across: float, down: float) -> Array:
    """A [C, H, W] plane at (across, down) in [-1, 1], texel centres inside the edge, zero outside."""
    _, h, w = plane.shape
    x, y = (across + 1) * w / 2 - 0.5, (down + 1) * h / 2 - 0.5
    value = np.zeros(plane.shape[0])
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= j < h and 0 <= i < w:
                value += (1 - abs(x - i)) * (1 - abs(y - j)) * plane[:, j, i]
    return value


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def decode(planes: Array, point: Array, decoder: list[Array]) -> tuple[float, Array]:
    """Raw density, colour at one point of the unit box [-1, 1]^3."""
    x, y, z = point
    feature = (bilinear(planes[0], x, y) + bilinear(planes[1], x, z) + bilinear(planes[2], z, x)) / 3
    w1, b1, w2, b2 = decoder
    out = w2 @ softplus(w1 @ feature + b1) + b2
    return out[0], 1.002 / (1 + np.exp(-out[1:])) - 0.001


def interval_weights(depths: Array, sigma: Array) -> Array:
    weights, through = [], 1.0
    for k in range(len(depths) - 1):
        opacity = -math.expm1(-softplus((sigma[k] + sigma[k + 1]) / 2 - 1) * (depths[k + 1] - depths[k]))
        weights.append(opacity * through)
        through *= 1 - opacity + 1e-10
    return np.array(weights)


def fine_depths(depths: Array, weights: Array, u: Array) -> Array:
    padded = np.concatenate([[-np.inf], weights, [-np.inf]])
    larger = np.maximum(padded[1:], padded[:-1])
    mass = ((larger[1:] + larger[:-1]) / 2 + 0.01)[1:-1] + 1e-5
    cdf = np.concatenate([[0], np.cumsum(mass / mass.sum())])
    mid = (depths[1:] + depths[:-1]) / 2
    return np.interp(u, cdf, mid[: len(cdf)])


def render(
    planes: Array,  # [3, C, H, W]
    origin: Array,
    direction: Array,
    decoder: list[Array],
    jitter: Array,  # [coarse]
    u: Array,  # [fine]
    *,
    near: float,
    far: float,
    box_warp: float,
    white_back: bool,
) -> tuple[Array, float, float]:
    """Features, depth, sum of weights."""
    step = (far - near) / (len(jitter) - 1)
    depths = np.array([near + (i + j) * step for i, j in enumerate(jitter)])

    def decode_all(at: Array) -> tuple[Array, Array]:
        found = [decode(planes, (origin + t * direction) * 2 / box_warp, decoder) for t in at]
        return np.array([s for s, _ in found]), np.array([c for _, c in found])

    sigma, _ = decode_all(depths)
    if len(u):
        depths = np.sort(np.concatenate([depths, fine_depths(depths, interval_weights(depths, sigma), u)]))
    sigma, colour = decode_all(depths)
    weights = interval_weights(depths, sigma)
    total = weights.sum()
    feature = sum(w * (colour[k] + colour[k + 1]) / 2 for k, w in enumerate(weights))
    depth = sum(w * (depths[k] + depths[k + 1]) / 2 for k, w in enumerate(weights)) / total
    return (feature + (1 - total) * white_back) * 2 - 1, depth, total
