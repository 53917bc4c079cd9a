"""haar as Triton kernels: synthesis, analysis with the sums of the style, for each layout."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.haar.haar import gradients, output

TILE = 1024  # bands of one step of a program
PROGRAMS = 1024  # what fills a device; only for the sums of the style does a program take several steps


@triton.jit
def butterfly(a, b, c, d):
    """(a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d) / 2, its own inverse."""
    e, f, g, h = a + b, a - b, c + d, c - d
    return (e + g) * 0.5, (e - g) * 0.5, (f + h) * 0.5, (f - h) * 0.5


@triton.jit
def haar_nhwc_kernel(
    x_ptr,  # [N, height, width, 4 channels]
    style_ptr,  # [N, 4 channels]
    y_ptr,  # [N, 2 height, 2 width, channels]
    channels,
    height,
    width,
    STYLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program, PIXELS pixels of an image by CHANNELS output channels."""
    n = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    bands = tl.program_id(1) * CHANNELS * 4 + tl.arange(0, CHANNELS * 4)
    inside = p < height * width
    x_ptr += n * height * width * channels * 4
    at = p.to(tl.int64)[:, None] * (4 * channels) + bands[None, :]
    mask = inside[:, None] & (bands < 4 * channels)[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if STYLE:
        style = tl.load(style_ptr + n * channels * 4 + bands, mask=bands < 4 * channels, other=0.0)
        x *= style.to(tl.float32)[None, :]
    # the four bands of a channel lie together: [.., low or high in one direction, in the other]
    first, second = tl.split(tl.reshape(x, (PIXELS, CHANNELS, 2, 2)))
    ll, hl = tl.split(first)
    lh, hh = tl.split(second)
    top_left, top_right, bottom_left, bottom_right = butterfly(ll, lh, hl, hh)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    corner = (n * 2 * height + p // width * 2) * 2 * width + p % width * 2
    at = corner[:, None] * channels + c[None, :]
    below = (corner + 2 * width)[:, None] * channels + c[None, :]
    mask = inside[:, None] & (c < channels)[None, :]
    tl.store(y_ptr + at, top_left.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + at + channels, top_right.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + below, bottom_left.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + below + channels, bottom_right.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def haar_nhwc_backward_kernel(
    gy_ptr,  # [N, 2 height, 2 width, channels]
    x_ptr,  # [N, height, width, 4 channels]
    style_ptr,  # [N, 4 channels]
    gx_ptr,  # [N, height, width, 4 channels]
    sums_ptr,  # [N, programs along the pixels, 4 channels] fp32
    channels,
    height,
    width,
    steps,
    STYLE: tl.constexpr,
    WANT_X: tl.constexpr,
    WANT_STYLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program, `steps` times PIXELS pixels of an image by CHANNELS output channels."""
    n = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    bands = tl.program_id(1) * CHANNELS * 4 + tl.arange(0, CHANNELS * 4)
    sums = tl.zeros((CHANNELS * 4,), tl.float32)
    if STYLE:
        style = tl.load(style_ptr + n * channels * 4 + bands, mask=bands < 4 * channels, other=0.0).to(tl.float32)
    for step in range(steps):
        p = (tl.program_id(0) * steps + step) * PIXELS + tl.arange(0, PIXELS)
        inside = p < height * width
        corner = (n * 2 * height + p // width * 2) * 2 * width + p % width * 2
        at = corner[:, None] * channels + c[None, :]
        below = (corner + 2 * width)[:, None] * channels + c[None, :]
        mask = inside[:, None] & (c < channels)[None, :]
        top_left = tl.load(gy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        top_right = tl.load(gy_ptr + at + channels, mask=mask, other=0.0).to(tl.float32)
        bottom_left = tl.load(gy_ptr + below, mask=mask, other=0.0).to(tl.float32)
        bottom_right = tl.load(gy_ptr + below + channels, mask=mask, other=0.0).to(tl.float32)
        ll, lh, hl, hh = butterfly(top_left, top_right, bottom_left, bottom_right)
        g = tl.reshape(tl.join(tl.join(ll, hl), tl.join(lh, hh)), (PIXELS, CHANNELS * 4))
        at = (n * height * width + p)[:, None] * (4 * channels) + bands[None, :]
        mask = inside[:, None] & (bands < 4 * channels)[None, :]
        if WANT_STYLE:
            x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
            sums += tl.sum(g * x, axis=0)
        if WANT_X:
            if STYLE:
                g *= style[None, :]
            tl.store(gx_ptr + at, g.to(gx_ptr.dtype.element_ty), mask=mask)
    if WANT_STYLE:
        at = (n * tl.num_programs(0) + tl.program_id(0)) * channels * 4 + bands
        tl.store(sums_ptr + at, sums, mask=bands < 4 * channels)


@triton.jit
def haar_nchw_kernel(
    x_ptr,  # [N, 4 channels, height, width]
    style_ptr,  # [N, 4 channels]
    y_ptr,  # [N, channels, 2 height, 2 width]
    channels,
    height,
    width,
    STYLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program, PIXELS pixels of an image by CHANNELS output channels."""
    n = tl.program_id(2).to(tl.int64)
    size = height * width
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    plane = (n * channels + c) * 4
    at = plane[:, None] * size + p[None, :]
    mask = (c < channels)[:, None] & (p < size)[None, :]
    ll = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    lh = tl.load(x_ptr + at + size, mask=mask, other=0.0).to(tl.float32)
    hl = tl.load(x_ptr + at + 2 * size, mask=mask, other=0.0).to(tl.float32)
    hh = tl.load(x_ptr + at + 3 * size, mask=mask, other=0.0).to(tl.float32)
    if STYLE:
        ll *= tl.load(style_ptr + plane, mask=c < channels, other=0.0).to(tl.float32)[:, None]
        lh *= tl.load(style_ptr + plane + 1, mask=c < channels, other=0.0).to(tl.float32)[:, None]
        hl *= tl.load(style_ptr + plane + 2, mask=c < channels, other=0.0).to(tl.float32)[:, None]
        hh *= tl.load(style_ptr + plane + 3, mask=c < channels, other=0.0).to(tl.float32)[:, None]
    top_left, top_right, bottom_left, bottom_right = butterfly(ll, lh, hl, hh)
    # neighbours of a row alternate, so that a store runs over contiguous memory
    top = tl.reshape(tl.join(top_left, top_right), (CHANNELS, 2 * PIXELS))
    bottom = tl.reshape(tl.join(bottom_left, bottom_right), (CHANNELS, 2 * PIXELS))
    column = tl.program_id(0) * 2 * PIXELS + tl.arange(0, 2 * PIXELS)
    row = column // (2 * width)
    at = plane[:, None] * size + (row * 4 * width + column % (2 * width))[None, :]
    mask = (c < channels)[:, None] & (column < 2 * size)[None, :]
    tl.store(y_ptr + at, top.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + at + 2 * width, bottom.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def haar_nchw_backward_kernel(
    gy_ptr,  # [N, channels, 2 height, 2 width]
    x_ptr,  # [N, 4 channels, height, width]
    style_ptr,  # [N, 4 channels]
    gx_ptr,  # [N, 4 channels, height, width]
    sums_ptr,  # [N, programs along the pixels, 4 channels] fp32
    channels,
    height,
    width,
    steps,
    STYLE: tl.constexpr,
    WANT_X: tl.constexpr,
    WANT_STYLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program, `steps` times PIXELS pixels of an image by CHANNELS output channels."""
    n = tl.program_id(2).to(tl.int64)
    size = height * width
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    # channel, band: joined as the bands below are
    band = tl.arange(0, 4)
    plane = (n * channels + c) * 4
    sums = tl.zeros((CHANNELS, 4), tl.float32)
    known = (c < channels)[:, None] & (band < 4)[None, :]
    if STYLE:
        style = tl.load(style_ptr + plane[:, None] + band[None, :], mask=known, other=0.0).to(tl.float32)
    for step in range(steps):
        first = (tl.program_id(0) * steps + step) * PIXELS
        column = first * 2 + tl.arange(0, 2 * PIXELS)
        row = column // (2 * width)
        at = plane[:, None] * size + (row * 4 * width + column % (2 * width))[None, :]
        mask = (c < channels)[:, None] & (column < 2 * size)[None, :]
        top = tl.load(gy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        bottom = tl.load(gy_ptr + at + 2 * width, mask=mask, other=0.0).to(tl.float32)
        top_left, top_right = tl.split(tl.reshape(top, (CHANNELS, PIXELS, 2)))
        bottom_left, bottom_right = tl.split(tl.reshape(bottom, (CHANNELS, PIXELS, 2)))
        ll, lh, hl, hh = butterfly(top_left, top_right, bottom_left, bottom_right)
        g = tl.reshape(tl.join(tl.join(ll, hl), tl.join(lh, hh)), (CHANNELS, PIXELS, 4))
        p = first + tl.arange(0, PIXELS)
        at = (plane[:, None, None] + band[None, None, :]) * size + p[None, :, None]
        mask = (c < channels)[:, None, None] & (p < size)[None, :, None] & (band < 4)[None, None, :]
        if WANT_STYLE:
            x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
            sums += tl.sum(g * x, axis=1)
        if WANT_X:
            if STYLE:
                g *= style[:, None, :]
            tl.store(gx_ptr + at, g.to(gx_ptr.dtype.element_ty), mask=mask)
    if WANT_STYLE:
        at = (n * tl.num_programs(0) + tl.program_id(0)) * channels * 4 + (c * 4)[:, None] + band[None, :]
        tl.store(sums_ptr + at, sums, mask=known)


def tile(channels: int, pixels: int, *, nhwc: bool) -> dict[str, int]:
    """Output channels, pixels of a program: contiguous memory first."""
    most = TILE // 4
    if nhwc:
        c = min(triton.next_power_of_2(channels), 64)
        return {"CHANNELS": c, "PIXELS": min(triton.next_power_of_2(pixels), most // c)}
    p = min(triton.next_power_of_2(pixels), most)
    return {"CHANNELS": min(triton.next_power_of_2(channels), most // p), "PIXELS": p}


def forward(x: Tensor, style: Tensor | None) -> Tensor:
    """As the door; x dense."""
    n, c, h, w = x.shape
    nhwc = _dispatch.is_nhwc(x)
    y = output(x)
    shape = tile(c // 4, h * w, nhwc=nhwc)
    grid = (triton.cdiv(h * w, shape["PIXELS"]), triton.cdiv(c // 4, shape["CHANNELS"]), n)
    kernel = haar_nhwc_kernel if nhwc else haar_nchw_kernel
    kernel[grid](x, x if style is None else style, y, c // 4, h, w, STYLE=style is not None, **shape)
    return y


def backward(
    gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_x: bool, want_style: bool
) -> list[Tensor]:
    """Gradients of x in its layout, of the style in fp32: those that are wanted."""
    gx, gstyle = gradients(gy, nhwc, want_x, want_style)
    n, c, h, w = gy.shape[0], gy.shape[1], gy.shape[2] // 2, gy.shape[3] // 2
    shape = tile(c, h * w, nhwc=nhwc)
    tiles, blocks = triton.cdiv(h * w, shape["PIXELS"]), triton.cdiv(c, shape["CHANNELS"])
    steps = max(1, tiles * blocks * n // PROGRAMS) if want_style else 1
    grid = (triton.cdiv(tiles, steps), blocks, n)
    # programs leave sums of their own, so that the total does not depend on their order
    parts = _dispatch.empty((n, grid[0], 4 * c), gstyle) if gstyle is not None and grid[0] > 1 else None
    sums = gstyle if parts is None else parts
    kernel = haar_nhwc_backward_kernel if nhwc else haar_nchw_backward_kernel
    kernel[grid](
        gy,
        gy if x is None else x,
        gy if style is None else style,
        gy if gx is None else gx,
        gy if sums is None else sums,
        c,
        h,
        w,
        steps,
        STYLE=style is not None,
        WANT_X=want_x,
        WANT_STYLE=want_style,
        **shape,
    )
    if gstyle is not None and parts is not None:
        gstyle.copy_(parts.sum(1))
    return [t for t in (gx, gstyle) if t is not None]


_SIZES = dict.fromkeys(("channels", "height", "width"), "i32")
_POINTERS = {"x_ptr": "*{T}", "style_ptr": "*{T}", "y_ptr": "*{T}"}
_GRADIENTS = {"gy_ptr": "*{T}", "x_ptr": "*{T}", "style_ptr": "*{T}", "gx_ptr": "*{T}", "sums_ptr": "*fp32"}

COMPILE = {
    f"{layout}_{name}": (
        kernel,
        pointers | _SIZES | steps,
        {"STYLE": True} | want | tile(64, 4096, nhwc=layout == "nhwc"),
    )
    for name, pointers, steps, want, kernels in (
        ("forward", _POINTERS, {}, {}, (haar_nhwc_kernel, haar_nchw_kernel)),
        (
            "backward",
            _GRADIENTS,
            {"steps": "i32"},
            {"WANT_X": True, "WANT_STYLE": True},
            (haar_nhwc_backward_kernel, haar_nchw_backward_kernel),
        ),
    )
    for layout, kernel in zip(("nhwc", "nchw"), kernels, strict=True)
}
