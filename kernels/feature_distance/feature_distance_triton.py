"""feature_distance as Triton kernels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch

TILE = 4096  # elements of a map at a time; 16 of each of two maps in a thread's registers
CHANNELS = 512  # at a time: more go through the tile in turns


@triton.jit
def load_pair(a_ptr, b_ptr, weight_ptr, c, p, channels, pixels, NHWC: tl.constexpr, WEIGHT: tl.constexpr):
    """Offsets, mask, features [P, C] of both maps, weight [1, C] of a tile."""
    at = p[:, None] * channels + c[None, :] if NHWC else c[None, :] * pixels + p[:, None]
    mask = (p < pixels)[:, None] & (c < channels)[None, :]
    a = tl.load(a_ptr + at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if WEIGHT:
        w = tl.load(weight_ptr + c, mask=c < channels, other=0.0)[None, :]
    else:
        w = (c[None, :] * 0 + 1).to(tl.float32)
    return at, mask, a, b, w


@triton.jit
def difference(a, b, ra, rb):
    """u - v of the scaled features: exactly 0 where a == b, whatever the compiler fuses."""
    return ra[:, None] * (a - (rb / ra)[:, None] * b)


@triton.jit
def inverses(a_ptr, b_ptr, p, channels, pixels, eps, NHWC: tl.constexpr, NORMALISED: tl.constexpr, C: tl.constexpr):
    """1 / length over channels of both maps, [P], in turns of C channels."""
    aa = tl.zeros(p.shape, tl.float32)
    bb = tl.zeros(p.shape, tl.float32)
    for start in range(0, channels, C):
        c = start + tl.arange(0, C)
        _, _, a, b, _ = load_pair(a_ptr, b_ptr, a_ptr, c, p, channels, pixels, NHWC, False)
        aa += tl.sum(a * a, 1)
        bb += tl.sum(b * b, 1)
    ra = 1.0 / tl.sqrt(aa + eps)
    rb = bb * 0.0 + 1.0 if NORMALISED else 1.0 / tl.sqrt(bb + eps)
    return ra, rb


@triton.jit
def feature_distance_forward_kernel(
    a_ptr,  # [N, C, P], [N, P, C] with NHWC
    b_ptr,  # the same, [1, ...] where b_stride is 0
    weight_ptr,  # [C]
    partial_ptr,  # [N, blocks]
    channels,
    pixels,
    b_stride,
    blocks,
    scale,
    eps,
    NHWC: tl.constexpr,
    WEIGHT: tl.constexpr,
    NORMALISED: tl.constexpr,
    SINGLE: tl.constexpr,  # all channels fit the tile: one read
    P: tl.constexpr,
    C: tl.constexpr,
):
    """One program, P pixels of one image."""
    n = tl.program_id(1).to(tl.int64)
    a_ptr += n * channels * pixels
    b_ptr += n * b_stride
    p = tl.program_id(0) * P + tl.arange(0, P)
    if SINGLE:
        _, _, a, b, w = load_pair(a_ptr, b_ptr, weight_ptr, tl.arange(0, C), p, channels, pixels, NHWC, WEIGHT)
        ra = 1.0 / tl.sqrt(tl.sum(a * a, 1) + eps)
        rb = ra * 0.0 + 1.0 if NORMALISED else 1.0 / tl.sqrt(tl.sum(b * b, 1) + eps)
        e = difference(a, b, ra, rb)
        distance = tl.sum(w * e * e, 1)
    else:
        ra, rb = inverses(a_ptr, b_ptr, p, channels, pixels, eps, NHWC, NORMALISED, C)
        distance = tl.zeros((P,), tl.float32)
        for start in range(0, channels, C):
            c = start + tl.arange(0, C)
            _, _, a, b, w = load_pair(a_ptr, b_ptr, weight_ptr, c, p, channels, pixels, NHWC, WEIGHT)
            e = difference(a, b, ra, rb)
            distance += tl.sum(w * e * e, 1)
    tl.store(partial_ptr + n * blocks + tl.program_id(0), tl.sum(distance, 0) * (scale / pixels))


@triton.jit
def feature_distance_backward_kernel(
    gout_ptr,  # [N]
    a_ptr,
    b_ptr,
    weight_ptr,
    ga_ptr,  # as a
    gb_ptr,  # as a
    channels,
    pixels,
    b_stride,
    scale,
    eps,
    NHWC: tl.constexpr,
    WEIGHT: tl.constexpr,
    NORMALISED: tl.constexpr,
    NEED_A: tl.constexpr,
    NEED_B: tl.constexpr,
    SINGLE: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    """One program, P pixels of one image; lengths are computed anew, nothing was saved for them."""
    n = tl.program_id(1).to(tl.int64)
    offset = n * channels * pixels
    a_ptr += offset
    b_ptr += n * b_stride
    ga_ptr += offset
    gb_ptr += offset
    p = tl.program_id(0) * P + tl.arange(0, P)
    g = 2.0 * tl.load(gout_ptr + n) * (scale / pixels)
    if SINGLE:
        at, mask, a, b, w = load_pair(a_ptr, b_ptr, weight_ptr, tl.arange(0, C), p, channels, pixels, NHWC, WEIGHT)
        ra = 1.0 / tl.sqrt(tl.sum(a * a, 1) + eps)
        rb = ra * 0.0 + 1.0 if NORMALISED else 1.0 / tl.sqrt(tl.sum(b * b, 1) + eps)
        u = a * ra[:, None]
        v = b * rb[:, None]
        e = w * difference(a, b, ra, rb)
        if NEED_A:
            ga = (g * ra)[:, None] * (e - u * tl.sum(u * e, 1)[:, None])
            tl.store(ga_ptr + at, ga.to(ga_ptr.dtype.element_ty), mask=mask)
        if NEED_B:
            along = v * 0.0 if NORMALISED else v * tl.sum(v * e, 1)[:, None]
            gb = (g * rb)[:, None] * (along - e)
            tl.store(gb_ptr + at, gb.to(gb_ptr.dtype.element_ty), mask=mask)
    else:
        ra, rb = inverses(a_ptr, b_ptr, p, channels, pixels, eps, NHWC, NORMALISED, C)
        along_a = tl.zeros((P,), tl.float32)
        along_b = tl.zeros((P,), tl.float32)
        for start in range(0, channels, C):
            c = start + tl.arange(0, C)
            _, _, a, b, w = load_pair(a_ptr, b_ptr, weight_ptr, c, p, channels, pixels, NHWC, WEIGHT)
            u = a * ra[:, None]
            v = b * rb[:, None]
            e = w * difference(a, b, ra, rb)
            along_a += tl.sum(u * e, 1)
            along_b += tl.sum(v * e, 1)
        if NORMALISED:
            along_b = along_b * 0.0
        for start in range(0, channels, C):
            c = start + tl.arange(0, C)
            at, mask, a, b, w = load_pair(a_ptr, b_ptr, weight_ptr, c, p, channels, pixels, NHWC, WEIGHT)
            u = a * ra[:, None]
            v = b * rb[:, None]
            e = w * difference(a, b, ra, rb)
            if NEED_A:
                ga = (g * ra)[:, None] * (e - u * along_a[:, None])
                tl.store(ga_ptr + at, ga.to(ga_ptr.dtype.element_ty), mask=mask)
            if NEED_B:
                gb = (g * rb)[:, None] * (v * along_b[:, None] - e)
                tl.store(gb_ptr + at, gb.to(gb_ptr.dtype.element_ty), mask=mask)


def forward(
    a: list[Tensor], b: list[Tensor], weights: list[Tensor], scales: list[float], normalised: bool, eps: float
) -> Tensor:
    """As the door; a, b of a tap dense in the same layout. A launch for each tap, then one sum."""
    tiles = [_tile(tap) for tap in a]
    counts = [triton.cdiv(tap.shape[2] * tap.shape[3], tile["P"]) for tap, tile in zip(a, tiles, strict=True)]
    batch = a[0].shape[0]
    partial = _dispatch.empty((batch, sum(counts)), a[0], dtype=torch.float32)
    first = 0
    for i, (x, y, tile, count) in enumerate(zip(a, b, tiles, counts, strict=True)):
        feature_distance_forward_kernel[(count, batch)](
            x,
            y,
            weights[i] if weights else x,
            partial[:, first:],
            *_sizes(x, y),
            sum(counts),
            scales[i],
            eps,
            WEIGHT=bool(weights),
            NORMALISED=normalised,
            num_warps=8,
            **tile,
        )
        first += count
    return partial.sum(dim=1)


def backward(
    gout: Tensor,
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    ga: list[Tensor],
    gb: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
) -> None:
    """Gradients into `ga`, `gb`, which are empty lists where not wanted."""
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        tile = _tile(x)
        feature_distance_backward_kernel[(triton.cdiv(x.shape[2] * x.shape[3], tile["P"]), x.shape[0])](
            gout,
            x,
            y,
            weights[i] if weights else x,
            ga[i] if ga else x,
            gb[i] if gb else x,
            *_sizes(x, y),
            scales[i],
            eps,
            WEIGHT=bool(weights),
            NORMALISED=normalised,
            NEED_A=bool(ga),
            NEED_B=bool(gb),
            num_warps=8,
            **tile,
        )


def _tile(tap: Tensor) -> dict[str, int | bool]:
    channels, pixels = tap.shape[1], tap.shape[2] * tap.shape[3]
    c = min(CHANNELS, triton.next_power_of_2(channels))
    p = min(TILE // c, max(4, triton.next_power_of_2(pixels)))
    return {"NHWC": _dispatch.is_nhwc(tap), "SINGLE": channels <= c, "P": p, "C": c}


def _sizes(a: Tensor, b: Tensor) -> tuple[int, int, int]:
    pixels = a.shape[2] * a.shape[3]
    return a.shape[1], pixels, 0 if len(b) < len(a) else a.shape[1] * pixels


_SIZES = {"channels": "i32", "pixels": "i32", "b_stride": "i64"}
_FACTORS = {"scale": "fp32", "eps": "fp32"}
_FORWARD = {"a_ptr": "*{T}", "b_ptr": "*{T}", "weight_ptr": "*fp32", "partial_ptr": "*fp32"} | _SIZES
_BACKWARD = {"gout_ptr": "*fp32", "a_ptr": "*{T}", "b_ptr": "*{T}", "weight_ptr": "*fp32"} | {
    "ga_ptr": "*{T}",
    "gb_ptr": "*{T}",
}
_NHWC = {"NHWC": True, "WEIGHT": True, "NORMALISED": False, "SINGLE": True, "P": 8, "C": 512}
_NCHW = _NHWC | {"NHWC": False, "P": 256, "C": 16}
_TURNS = _NHWC | {"SINGLE": False}
_NEED = {"NEED_A": True, "NEED_B": True}

# name -> (kernel, signature of pointers by dtype, constexprs, options): what bench/compile_report.py compiles
COMPILE = {
    f"{name}_{layout}": (kernel, signature, tile | need, {"num_warps": 8})
    for layout, tile in (("nhwc", _NHWC), ("nchw", _NCHW), ("turns", _TURNS))
    for name, kernel, signature, need in (
        ("forward", feature_distance_forward_kernel, _FORWARD | {"blocks": "i32"} | _FACTORS, {}),
        ("backward", feature_distance_backward_kernel, _BACKWARD | _SIZES | _FACTORS, _NEED),
    )
}
