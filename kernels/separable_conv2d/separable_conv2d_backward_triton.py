"""separable_conv2d in Triton, backward: two products, the depthwise pass with its sums."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.bias_act import bias_act_triton
from guide_fast.kernels.bias_act.bias_act_triton import activate_slope
from guide_fast.kernels.haar import haar_triton
from guide_fast.kernels.separable_conv2d.separable_conv2d import gradients
from guide_fast.kernels.separable_conv2d.separable_conv2d_triton import (
    DEPTH_BITS,
    LAUNCH,
    block,
    convolve,
    multiply,
    product,
    strides,
)

PROGRAMS = 256  # what fills a device: how far sums over pixels are cut into parts


@triton.jit
def pointwise_backward_kernel(
    gy_ptr,  # [N, O, H, W]
    y_ptr,
    pointwise_ptr,  # [O, I]
    g_ptr,  # [N, O, H, W]
    t_ptr,  # [N, I, H, W]
    inputs,
    outputs,
    size,
    y_pixel,
    y_channel,
    t_pixel,
    t_channel,
    slope,
    gain,
    clamp,
    STORE_G: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    UPCAST: tl.constexpr,
    TF32: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """t = P^T g of PIXELS pixels of an image by INPUTS channels; g = gy dy/dx is stored by the first of them."""
    n = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    i = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    sums = tl.zeros((PIXELS, INPUTS), tl.float32)
    # accumulate over output channels
    for first in range(0, outputs, OUTPUTS):
        o = first + tl.arange(0, OUTPUTS)
        at = n * size * outputs + p.to(tl.int64)[:, None] * y_pixel + o.to(tl.int64)[None, :] * y_channel
        mask = (p < size)[:, None] & (o < outputs)[None, :]
        y = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(gy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        g *= activate_slope(y, slope, gain, clamp, LRELU, CLAMP)
        if STORE_G:
            first_block = tl.where(tl.program_id(1) == 0, outputs, 0)
            stored = (p < size)[:, None] & (o < first_block)[None, :]
            tl.store(g_ptr + at, g.to(g_ptr.dtype.element_ty), mask=stored)
        at = o.to(tl.int64)[:, None] * inputs + i[None, :]
        w = tl.load(pointwise_ptr + at, mask=(o < outputs)[:, None] & (i < inputs)[None, :], other=0.0)
        sums = multiply(g, w, sums, t_ptr.dtype.element_ty, UPCAST, TF32)
    at = n * size * inputs + p.to(tl.int64)[:, None] * t_pixel + i.to(tl.int64)[None, :] * t_channel
    tl.store(t_ptr + at, sums.to(t_ptr.dtype.element_ty), mask=(p < size)[:, None] & (i < inputs)[None, :])


@triton.jit
def depthwise_backward_kernel(
    t_ptr,  # [N, I, H, W]
    x_ptr,
    depthwise_ptr,  # [I, 9]
    style_ptr,  # [N, I]
    gx_ptr,  # [N, I, H, W]
    gstyle_ptr,  # [N, programs along the pixels, I] fp32
    gdepthwise_ptr,  # [N, programs along the pixels, 16, I] fp32
    channels,
    height,
    width,
    pixel_stride,
    channel_stride,
    steps,
    DEPTHWISE: tl.constexpr,
    WANT_X: tl.constexpr,
    WANT_STYLE: tl.constexpr,
    WANT_DEPTHWISE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """gx = style r, sums of r x, of style t x: `steps` times PIXELS pixels of an image by CHANNELS channels."""
    n, size = tl.program_id(2).to(tl.int64), height * width
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < channels
    style = tl.load(style_ptr + n * channels + c, mask=known, other=0.0).to(tl.float32)
    taps = tl.arange(0, 16)
    gstyle = tl.zeros((CHANNELS,), tl.float32)
    gdepthwise = tl.zeros((16, CHANNELS), tl.float32)
    image = n * size * channels
    for step in range(steps):
        p = (tl.program_id(0) * steps + step) * PIXELS + tl.arange(0, PIXELS)
        row, column = p // width, p % width
        here = image + p.to(tl.int64)[:, None] * pixel_stride + c.to(tl.int64)[None, :] * channel_stride
        mask = (p < size)[:, None] & known[None, :]
        if WANT_STYLE or WANT_DEPTHWISE:
            x = tl.load(x_ptr + here, mask=mask, other=0.0).to(tl.float32)
        if DEPTHWISE:
            r = tl.zeros((PIXELS, CHANNELS), tl.float32)
            for dy in tl.static_range(-1, 2):
                for dx in tl.static_range(-1, 2):
                    # x at p met tap k where the window's centre was p - (dy, dx)
                    inside = (row >= dy) & (row < height + dy) & (column >= dx) & (column < width + dx) & (p < size)
                    at = here - (dy * width + dx) * pixel_stride
                    t = tl.load(t_ptr + at, mask=inside[:, None] & known[None, :], other=0.0).to(tl.float32)
                    r += (
                        t
                        * tl.load(depthwise_ptr + c * 9 + dy * 3 + dx + 4, mask=known, other=0.0).to(tl.float32)[
                            None, :
                        ]
                    )
                    if WANT_DEPTHWISE:
                        gdepthwise += tl.where((taps == dy * 3 + dx + 4)[:, None], tl.sum(t * x, axis=0)[None, :], 0.0)
        else:
            r = tl.load(t_ptr + here, mask=mask, other=0.0).to(tl.float32)
        if WANT_STYLE:
            gstyle += tl.sum(r * x, axis=0)
        if WANT_X:
            tl.store(gx_ptr + here, (r * style[None, :]).to(gx_ptr.dtype.element_ty), mask=mask)
    part = n * tl.num_programs(0) + tl.program_id(0)
    if WANT_STYLE:
        tl.store(gstyle_ptr + part * channels + c, gstyle, mask=known)
    if WANT_DEPTHWISE:
        at = (part * 16 + taps)[:, None] * channels + c[None, :]
        tl.store(gdepthwise_ptr + at, gdepthwise * style[None, :], mask=known[None, :] & (taps < 16)[:, None])


@triton.jit
def pointwise_weight_kernel(
    g_ptr,  # [N, O, H, W]
    x_ptr,  # [N, I, H, W]
    depthwise_ptr,  # [I, 9]
    style_ptr,  # [N, I]
    parts_ptr,  # [N, parts of an image, O, I] fp32
    inputs,
    outputs,
    height,
    width,
    x_pixel,
    x_channel,
    g_pixel,
    g_channel,
    steps,
    parts,
    DEPTHWISE: tl.constexpr,
    UPCAST: tl.constexpr,
    TF32: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Sum of g v^T over `steps` times PIXELS pixels of an image, OUTPUTS by INPUTS; v as in the forward pass."""
    PIXELS: tl.constexpr = DEPTH_BITS // x_ptr.dtype.element_ty.primitive_bitwidth
    part = tl.program_id(2)
    n, size = (part // parts).to(tl.int64), height * width
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    i = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    style = tl.load(style_ptr + n * inputs + i, mask=i < inputs, other=0.0).to(tl.float32)
    sums = tl.zeros((OUTPUTS, INPUTS), tl.float32)
    # accumulate over pixels
    for step in range(steps):
        p = (part % parts * steps + step) * PIXELS + tl.arange(0, PIXELS)
        at = n * size * outputs + p.to(tl.int64)[None, :] * g_pixel + o.to(tl.int64)[:, None] * g_channel
        g = tl.load(g_ptr + at, mask=(o < outputs)[:, None] & (p < size)[None, :], other=0.0)
        image = x_ptr + n * size * inputs
        v = convolve(image, depthwise_ptr, p, i, inputs, height, width, x_pixel, x_channel, DEPTHWISE)
        sums = multiply(g, v * style[None, :], sums, x_ptr.dtype.element_ty, UPCAST, TF32)
    at = (part.to(tl.int64) * outputs + o)[:, None] * inputs + i[None, :]
    tl.store(parts_ptr + at, sums, mask=(o < outputs)[:, None] & (i < inputs)[None, :])


def backward(
    gy: Tensor,
    y: Tensor,
    x: Tensor,
    haar_style: Tensor | None,
    depthwise: Tensor | None,
    pointwise: Tensor,
    style: Tensor,
    noise_n: int,
    wanted: list[bool],
    *settings: Any,
) -> list[Tensor]:
    """The gradients that are wanted, in the door's order; gy laid out as y."""
    nhwc = _dispatch.is_nhwc(x)
    if haar_style is None:
        grads = plain_backward(gy, y, x, depthwise, pointwise, style, noise_n, wanted, nhwc, *settings)
        return [t for t in grads if t is not None]
    u = haar_triton.forward(x, haar_style)
    inner = [wanted[0] or wanted[1], False, *wanted[2:]]
    gu, _, *sums = plain_backward(gy, y, u, depthwise, pointwise, style, noise_n, inner, nhwc, *settings)
    outer = [] if gu is None else haar_triton.backward(gu, x, haar_style, nhwc, wanted[0], wanted[1])
    return outer + [t for t in sums if t is not None]


def plain_backward(
    gy: Tensor,
    y: Tensor,
    x: Tensor,
    depthwise: Tensor | None,
    pointwise: Tensor,
    style: Tensor,
    noise_n: int,
    wanted: list[bool],
    nhwc: bool,
    activation: str,
    slope: float,
    gain: float,
    clamp: float,
) -> tuple[Tensor | None, ...]:
    """Without the wavelet: None for a gradient that is not wanted."""
    grads = gradients(y, x, pointwise, noise_n, wanted)
    gx, _, gdepthwise, gpointwise, gstyle, gnoise, gbias = grads
    need_g = wanted[3] or wanted[5] or wanted[6]
    g = None
    if wanted[0] or wanted[2] or wanted[4]:
        t, g = pointwise_backward(gy, y, x, pointwise, nhwc, need_g, activation, slope, gain, clamp)
        depthwise_backward(t, x, depthwise, style, nhwc, gx, gstyle, gdepthwise)
    elif need_g:
        g = bias_act_triton.backward(gy, y, activation, slope, gain, clamp)
    if g is None:
        return grads
    if gpointwise is not None:
        pointwise_weight(g, x, depthwise, style, nhwc, gpointwise)
    if gnoise is not None:
        per_image = g.sum(1, keepdim=True, dtype=torch.float32)
        gnoise.copy_(per_image.sum(0, keepdim=True) if noise_n == 1 else per_image)
    if gbias is not None:
        gbias.copy_(g.sum((0, 2, 3), dtype=torch.float32))
    return grads


def pointwise_backward(
    gy: Tensor, y: Tensor, x: Tensor, pointwise: Tensor, nhwc: bool, store_g: bool, activation: str, *numbers: float
) -> tuple[Tensor, Tensor | None]:
    """t, the gradient between the convolutions, with g, that before the activation."""
    n, o, h, w = y.shape
    i = pointwise.shape[1]
    t = _dispatch.empty((n, i, h, w), x, nhwc=nhwc)
    g = _dispatch.empty(tuple(y.shape), y, nhwc=nhwc) if store_g else None
    shape = {"PIXELS": block(h * w, 64), "INPUTS": block(i, 128), "OUTPUTS": block(o, 32)}
    grid = (triton.cdiv(h * w, shape["PIXELS"]), triton.cdiv(i, shape["INPUTS"]), n)
    pointwise_backward_kernel[grid](
        gy,
        y,
        pointwise,
        y if g is None else g,
        t,
        i,
        o,
        h * w,
        *strides(nhwc, o, h * w),
        *strides(nhwc, i, h * w),
        *numbers,
        STORE_G=store_g,
        LRELU=activation == "lrelu",
        CLAMP=numbers[2] >= 0,
        **product(x),
        **shape,
        **LAUNCH,
    )
    return t, g


def depthwise_backward(
    t: Tensor,
    x: Tensor,
    depthwise: Tensor | None,
    style: Tensor,
    nhwc: bool,
    gx: Tensor | None,
    gstyle: Tensor | None,
    gdepthwise: Tensor | None,
) -> None:
    """Writes gx, gstyle, gdepthwise where they are given."""
    n, c, h, w = x.shape
    shape = depthwise_shape(c, h * w, nhwc)
    tiles, blocks = triton.cdiv(h * w, shape["PIXELS"]), triton.cdiv(c, shape["CHANNELS"])
    sums = gstyle is not None or gdepthwise is not None
    steps = max(1, tiles * blocks * n // (4 * PROGRAMS)) if sums else 1
    parts = triton.cdiv(tiles, steps)
    # programs leave sums of their own, so that the total does not depend on their order
    gs = None if gstyle is None else _dispatch.empty((n, parts, c), gstyle)
    gd = None if gdepthwise is None else _dispatch.empty((n, parts, 16, c), gdepthwise)
    depthwise_backward_kernel[(parts, blocks, n)](
        t,
        x,
        x if depthwise is None else depthwise,
        style,
        t if gx is None else gx,
        t if gs is None else gs,
        t if gd is None else gd,
        c,
        h,
        w,
        *strides(nhwc, c, h * w),
        steps,
        DEPTHWISE=depthwise is not None,
        WANT_X=gx is not None,
        WANT_STYLE=gs is not None,
        WANT_DEPTHWISE=gd is not None,
        **shape,
    )
    if gstyle is not None and gs is not None:
        gstyle.copy_(gs.sum(1))
    if gdepthwise is not None and gd is not None:
        gdepthwise.copy_(gd.sum((0, 1))[:9].t().reshape(c, 1, 3, 3))


def depthwise_shape(channels: int, pixels: int, nhwc: bool) -> dict[str, int]:
    """Pixels, channels of a program: contiguous memory first."""
    if nhwc:
        c = min(triton.next_power_of_2(channels), 64)
        return {"CHANNELS": c, "PIXELS": min(triton.next_power_of_2(pixels), 256 // c)}
    p = min(triton.next_power_of_2(pixels), 128)
    return {"CHANNELS": min(triton.next_power_of_2(channels), 512 // p), "PIXELS": p}


def pointwise_weight(g: Tensor, x: Tensor, depthwise: Tensor | None, style: Tensor, nhwc: bool, out: Tensor) -> None:
    """Writes the gradient [O, I, 1, 1] of the pointwise weights to `out`."""
    n, i, h, w = x.shape
    o = g.shape[1]
    shape = {"INPUTS": block(i, 64), "OUTPUTS": block(o, 128)}
    blocks = triton.cdiv(o, shape["OUTPUTS"]), triton.cdiv(i, shape["INPUTS"])
    tiles = triton.cdiv(h * w, DEPTH_BITS.value // (8 * x.element_size()))
    steps = triton.cdiv(tiles * n * blocks[0] * blocks[1], PROGRAMS)
    parts = triton.cdiv(tiles, steps)
    sums = _dispatch.empty((n * parts, o, i), out)
    pointwise_weight_kernel[(*blocks, n * parts)](
        g,
        x,
        x if depthwise is None else depthwise,
        style,
        sums,
        i,
        o,
        h,
        w,
        *strides(nhwc, i, h * w),
        *strides(nhwc, o, h * w),
        steps,
        parts,
        DEPTHWISE=depthwise is not None,
        **product(x),
        **shape,
        **LAUNCH,
    )
    out.copy_(sums.sum(0).reshape(o, i, 1, 1))


_PRODUCT = {"UPCAST": False, "TF32": True}
_SUMS = dict.fromkeys(("DEPTHWISE", "WANT_X", "WANT_STYLE", "WANT_DEPTHWISE"), True)
_DEPTHWISE = (
    depthwise_backward_kernel,
    dict.fromkeys(("t_ptr", "x_ptr", "depthwise_ptr", "style_ptr", "gx_ptr"), "*{T}")
    | dict.fromkeys(("gstyle_ptr", "gdepthwise_ptr"), "*fp32")
    | dict.fromkeys(("channels", "height", "width", "pixel_stride", "channel_stride", "steps"), "i32"),
)
COMPILE = {
    "pointwise": (
        pointwise_backward_kernel,
        dict.fromkeys(("gy_ptr", "y_ptr", "pointwise_ptr", "g_ptr", "t_ptr"), "*{T}")
        | dict.fromkeys(("inputs", "outputs", "size", "y_pixel", "y_channel", "t_pixel", "t_channel"), "i32")
        | dict.fromkeys(("slope", "gain", "clamp"), "fp32"),
        {"STORE_G": True, "LRELU": True, "CLAMP": True, "y_channel": 1, "t_channel": 1}
        | _PRODUCT
        | {"PIXELS": 64, "OUTPUTS": 32, "INPUTS": 128},
        LAUNCH,
    ),
    "depthwise": (*_DEPTHWISE, _SUMS | {"channel_stride": 1} | depthwise_shape(64, 4096, True)),
    "depthwise_nchw": (*_DEPTHWISE, _SUMS | {"pixel_stride": 1} | depthwise_shape(64, 4096, False)),
    "pointwise_weight": (
        pointwise_weight_kernel,
        dict.fromkeys(("g_ptr", "x_ptr", "depthwise_ptr", "style_ptr"), "*{T}")
        | {"parts_ptr": "*fp32"}
        | dict.fromkeys(("inputs", "outputs", "height", "width", "x_pixel", "x_channel"), "i32")
        | dict.fromkeys(("g_pixel", "g_channel", "steps", "parts"), "i32"),
        {"DEPTHWISE": True, "x_channel": 1, "g_channel": 1} | _PRODUCT | {"OUTPUTS": 128, "INPUTS": 64},
        LAUNCH,
    ),
}
