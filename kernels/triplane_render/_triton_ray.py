"""One ray of triplane_render in Triton: sampling, decoder, march, quantiles."""

from __future__ import annotations

import triton
import triton.language as tl

WIDEN = tl.constexpr(0.001)
LEAK = tl.constexpr(1e-10)
FLOOR = tl.constexpr(0.01)
SMALLEST = tl.constexpr(1e-5)
EMPTY = tl.constexpr(2.0**-25)


@triton.jit
def softplus(x):
    """log(1 + e^x)."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def exact_softplus(x):
    """The same, to its last place where it is small."""
    small = tl.exp(-tl.abs(x))
    more = 1.0 + small
    lost = more - 1.0  # what is left of `small` after rounding
    return tl.maximum(x, 0.0) + tl.where(lost > 0, tl.log(more) * (small / tl.where(lost > 0, lost, 1.0)), small)


@triton.jit
def opacity(x):
    """1 - e^-x for x >= 0, to its last place where it is small; zero where e^-x rounds to 1 in fp32."""
    series = x * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120)))))
    return tl.where(x < EMPTY, 0.0, tl.where(x < 0.1, series, 1.0 - tl.exp(-x)))


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def product(a, b, DTYPE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """a b with operands in DTYPE, sums in fp32; UPCAST: the interpreter is wrong on half-precision operands."""
    a = a.to(DTYPE)
    b = b.to(DTYPE)
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def shifted(x, by: tl.constexpr, S: tl.constexpr):
    """x[i + by], at the ends the nearest."""
    at = tl.minimum(tl.maximum(tl.arange(0, S) + by, 0), S - 1)
    return tl.gather(x, at, 0)


@triton.jit
def place_on_plane(plane, x, y, z, height, width):
    """Upper left texel, fraction towards the others: planes hold (x, y), (x, z), (z, x)."""
    across = tl.where(plane == 2, z, x)
    down = tl.where(plane == 0, y, tl.where(plane == 1, z, x))
    # far outside is as good as just outside, and fits an int
    column = tl.minimum(tl.maximum(((across + 1.0) * width - 1.0) * 0.5, -2.0), width + 1.0)
    row = tl.minimum(tl.maximum(((down + 1.0) * height - 1.0) * 0.5, -2.0), height + 1.0)
    left = tl.floor(column)
    top = tl.floor(row)
    return left.to(tl.int32), top.to(tl.int32), column - left, row - top


@triton.jit
def corner_of(CORNER: tl.constexpr, left, top, fx, fy, height, width, valid):
    """Column, row, weight of corner 0..3 (right: bit 0, lower: bit 1), whether it is inside."""
    column = left + (CORNER & 1)
    row = top + (CORNER >> 1)
    weight = (fx if CORNER & 1 else 1.0 - fx) * (fy if CORNER >> 1 else 1.0 - fy)
    return column, row, weight, valid & (column >= 0) & (row >= 0) & (column < width) & (row < height)


@triton.jit
def points_of(
    t, samples, origins_ptr, directions_ptr, depths_ptr, scale, COUNT: tl.constexpr, AGAIN: tl.constexpr = False
):
    """Position of the samples `t` in [-1, 1], their rays, whether there are such samples.

    AGAIN: from a load of its own, so that no register has to hold what followed from the first one.
    """
    valid = t < samples
    ray = tl.where(valid, t // COUNT, 0)
    depth = tl.load(depths_ptr + t, mask=valid, other=0.0, volatile=AGAIN)
    x = (tl.load(origins_ptr + ray * 3) + tl.load(directions_ptr + ray * 3) * depth) * scale
    y = (tl.load(origins_ptr + ray * 3 + 1) + tl.load(directions_ptr + ray * 3 + 1) * depth) * scale
    z = (tl.load(origins_ptr + ray * 3 + 2) + tl.load(directions_ptr + ray * 3 + 2) * depth) * scale
    return x, y, z, ray, valid


@triton.jit
def sample_planes(
    planes_ptr, image, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, S: tl.constexpr, C: tl.constexpr
):
    """Mean over the planes at S points, [S, C] in fp32; `image` is where their image begins, one or [S]."""
    channel = tl.arange(0, C)
    sums = tl.zeros((S, C), tl.float32)
    for plane in range(3):  # not unrolled: the texels of one plane at a time are enough in flight, and in registers
        left, top, fx, fy = place_on_plane(plane, x, y, z, height, width)
        for corner in tl.static_range(4):
            column, row, weight, inside = corner_of(corner, left, top, fx, fy, height, width, valid)
            texel = image + plane * stride_plane + row.to(tl.int64) * stride_y + column.to(tl.int64) * stride_x
            values = tl.load(planes_ptr + texel[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
            sums += values.to(tl.float32) * weight[:, None]
    return sums * (1.0 / 3.0)


@triton.jit
def decode(
    feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, DTYPE: tl.constexpr, S: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    O: tl.constexpr, CHUNK: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,  # noqa: E741
):  # fmt: skip
    """Raw density [S], colours before the logistic function [S, O]; CHUNK hidden units are live at a time."""
    c, o = tl.arange(0, C), tl.arange(0, O)
    sigma = tl.zeros((S,), tl.float32)
    out = tl.zeros((S, O), tl.float32)
    for begin in range(0, K, CHUNK):
        k = begin + tl.arange(0, CHUNK)
        w1 = tl.load(w1_ptr + c[:, None] + k[None, :] * C)  # [C, CHUNK]
        b1 = tl.load(b1_ptr + k).to(tl.float32)
        hidden = softplus(product(feature, w1, DTYPE, UPCAST, PRECISION) + b1[None, :])
        sigma += tl.sum(hidden * tl.load(w2_ptr + k).to(tl.float32)[None, :], 1)
        w2 = tl.load(w2_ptr + K + k[:, None] + o[None, :] * K)  # [CHUNK, O]
        out += product(hidden, w2, DTYPE, UPCAST, PRECISION)
    b2 = tl.load(b2_ptr + 1 + o).to(tl.float32)
    return sigma + tl.load(b2_ptr).to(tl.float32), out + b2[None, :]


@triton.jit
def density(
    feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, DTYPE: tl.constexpr, S: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    CHUNK: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Raw density [S] alone."""
    c = tl.arange(0, C)
    sigma = tl.zeros((S,), tl.float32)
    for begin in range(0, K, CHUNK):
        k = begin + tl.arange(0, CHUNK)
        w1 = tl.load(w1_ptr + c[:, None] + k[None, :] * C)  # [C, CHUNK]
        b1 = tl.load(b1_ptr + k).to(tl.float32)
        hidden = softplus(product(feature, w1, DTYPE, UPCAST, PRECISION) + b1[None, :])
        sigma += tl.sum(hidden * tl.load(w2_ptr + k).to(tl.float32)[None, :], 1)
    return sigma + tl.load(b2_ptr).to(tl.float32)


@triton.jit
def march(depths, sigma, count, S: tl.constexpr):
    """alpha, light that arrives, length, mean raw density of the interval behind each of `count` samples; else 0."""
    i = tl.arange(0, S)
    real = i < count - 1
    length = tl.where(real, shifted(depths, 1, S) - depths, 0.0)
    mean = tl.where(real, (sigma + shifted(sigma, 1, S)) * 0.5, 0.0)
    alpha = tl.where(real, opacity(exact_softplus(mean - 1.0) * length), 0.0)
    light = tl.cumprod(1.0 - alpha + LEAK, 0)
    through = tl.where(i == 0, 1.0, shifted(light, -1, S))
    return alpha, through, length, mean


@triton.jit
def importance_depths(depths, weights, u, COARSE: tl.constexpr, P: tl.constexpr):
    """P depths where the smoothed weights' cumulated density is u; finite even for NaN weights."""
    k = tl.arange(0, P)
    after = tl.maximum(weights, shifted(weights, 1, P))
    before = tl.maximum(weights, shifted(weights, -1, P))
    mass = tl.where((k > 0) & (k < COARSE - 2), (before + after) * 0.5 + FLOOR + SMALLEST, 0.0)
    cdf = tl.where(k == 0, 0.0, tl.cumsum(mass, 0) / tl.sum(mass, 0))
    mid = (depths + shifted(depths, 1, P)) * 0.5
    step = k < COARSE - 2
    behind = (cdf[None, :] <= u[:, None]) & step[None, :]
    ahead = (cdf[None, :] > u[:, None]) & step[None, :]
    low = tl.max(tl.where(behind, cdf[None, :], 0.0), 1)
    start = tl.max(tl.where(behind, mid[None, :], float("-inf")), 1)
    high = tl.min(tl.where(ahead, cdf[None, :], float("inf")), 1)
    end = tl.min(tl.where(ahead, mid[None, :], float("inf")), 1)
    last = high == float("inf")
    high = tl.where(last, low, high)
    end = tl.where(last, start, end)
    width = tl.where(high - low >= SMALLEST, high - low, 1.0)
    return start + (u - low) / width * (end - start)
