"""Implicit GEMMs of modulated_conv2d as Triton kernels: convolution, its input gradient, its weight gradient.

All read NHWC. A convolution reads its input at `q * STEP + first + tap * OFFSET_STEP` for the row q of its grid, the
weight at the tap `first_tap + tap * TAP_STEP`, per axis: that covers up = 1, the four phases of up = 2, the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from guide_fast.kernels.bias_act import bias_act_triton

activate = bias_act_triton.activate


@triton.jit
def accumulate(
    a_ptr,  # [N, ha, wa, depth]
    b_ptr,  # weight, element strides below
    style_ptr,  # [depth] of this image
    image,  # which of N
    qy,  # [BM] grid rows
    qx,  # [BM]
    valid,  # [BM]
    columns,  # [BN] output channels
    ha,
    wa,
    depth,
    width,  # number of output channels
    tap_stride,
    depth_stride,
    column_stride,
    first_y,
    first_x,
    first_tap_y,
    first_tap_x,
    KERNEL: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    TAP_STEP: tl.constexpr,
    OFFSET_STEP: tl.constexpr,
    STEP: tl.constexpr,
    MODULATE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """[BM, BN] in fp32."""
    acc = tl.zeros((BM, BN), tl.float32)
    blocks = tl.cdiv(depth, BK)
    inside_columns = columns < width
    a_image = a_ptr + image.to(tl.int64) * ha * wa * depth
    for step in range(TAPS_Y * TAPS_X * blocks):
        tap = step // blocks
        k = (step % blocks) * BK + tl.arange(0, BK)
        inside_depth = k < depth
        tap_y = tap // TAPS_X
        tap_x = tap % TAPS_X
        iy = qy * STEP + first_y + tap_y * OFFSET_STEP
        ix = qx * STEP + first_x + tap_x * OFFSET_STEP
        inside = valid & (iy >= 0) & (iy < ha) & (ix >= 0) & (ix < wa)
        pixel = (iy * wa + ix).to(tl.int64) * depth
        a = tl.load(a_image + pixel[:, None] + k[None, :], mask=inside[:, None] & inside_depth[None, :], other=0.0)
        if MODULATE:
            style = tl.load(style_ptr + k, mask=inside_depth, other=0.0).to(tl.float32)
            a = (a.to(tl.float32) * style[None, :]).to(a_ptr.dtype.element_ty)
        at = (first_tap_y + tap_y * TAP_STEP) * KERNEL + first_tap_x + tap_x * TAP_STEP
        b_at = at.to(tl.int64) * tap_stride + k[:, None] * depth_stride + columns[None, :] * column_stride
        b = tl.load(b_ptr + b_at, mask=inside_depth[:, None] & inside_columns[None, :], other=0.0)
        if UPCAST:  # the interpreter has no bf16 products
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def convolution_kernel(
    x_ptr,  # [N, ha, wa, depth]
    weight_ptr,
    style_ptr,  # [N, depth]
    demod_ptr,  # [N, width] fp32
    noise_ptr,  # [N or 1, rows * step_out...], one image `noise_stride` after the other
    bias_ptr,  # [width]
    next_ptr,  # [N, width]
    y_ptr,  # [N, hy, wy, width]
    ha,
    wa,
    hy,
    wy,
    rows_y,  # the grid of this launch: rows_y * rows_x of the output's pixels
    rows_x,
    depth,
    width,
    tap_stride,
    depth_stride,
    column_stride,
    noise_stride,
    first,
    first_tap_y,  # also the phase: the first output pixel
    first_tap_x,
    slope,
    gain,
    clamp,
    KERNEL: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    UP: tl.constexpr,
    MODULATE: tl.constexpr,
    DEMOD: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    NEXT: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One program, BM pixels of one image x BN output channels; up = 1 whole, up = 2 one phase without epilogue."""
    tiles = tl.cdiv(rows_y * rows_x, BM)
    image = tl.program_id(0) // tiles
    row = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    valid = row < rows_y * rows_x
    qy = row // rows_x
    qx = row % rows_x
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = accumulate(
        x_ptr,
        weight_ptr,
        style_ptr + image.to(tl.int64) * depth,
        image,
        qy,
        qx,
        valid,
        columns,
        ha,
        wa,
        depth,
        width,
        tap_stride,
        depth_stride,
        column_stride,
        first,
        first,
        first_tap_y,
        first_tap_x,
        KERNEL,
        TAPS_Y,
        TAPS_X,
        UP,
        1 if UP == 1 else -1,
        1,
        MODULATE,
        BM,
        BN,
        BK,
        PRECISION,
        UPCAST,
    )
    # epilogue
    inside = columns < width
    at = image.to(tl.int64) * width + columns
    if DEMOD:
        acc *= tl.load(demod_ptr + at, mask=inside, other=0.0)[None, :]
    if NOISE:
        noise = tl.load(noise_ptr + image.to(tl.int64) * noise_stride + row, mask=valid, other=0.0)
        acc += noise.to(tl.float32)[:, None]
    if BIAS:
        acc += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    if UP == 1:
        acc = activate(acc, slope, gain, clamp, LRELU, CLAMP)
    if NEXT:
        acc *= tl.load(next_ptr + at, mask=inside, other=0.0).to(tl.float32)[None, :]
    y = (qy * UP + first_tap_y if UP == 2 else qy).to(tl.int64) * wy + (qx * UP + first_tap_x if UP == 2 else qx)
    y = (image.to(tl.int64) * hy * wy + y) * width
    tl.store(
        y_ptr + y[:, None] + columns[None, :],
        acc.to(y_ptr.dtype.element_ty),
        mask=valid[:, None] & inside[None, :],
    )


@triton.jit
def input_gradient_kernel(
    g_ptr,  # [N, hg, wg, O], already times the demodulation
    weight_ptr,
    style_ptr,  # [N, I]
    x_ptr,  # [N, h, w, I]
    gx_ptr,  # [N, h, w, I]
    partial_ptr,  # [N, tiles, I] fp32: sums over pixels of t * x
    hg,
    wg,
    h,
    w,
    depth,  # O
    width,  # I
    tap_stride,
    depth_stride,
    column_stride,
    first,
    KERNEL: tl.constexpr,
    UP: tl.constexpr,
    MODULATED: tl.constexpr,
    X_GRAD: tl.constexpr,
    STYLE_GRAD: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One program, BM pixels of one image x BN input channels: t, then gx = s * t, then its share of sum t * x."""
    tiles = tl.cdiv(h * w, BM)
    image = tl.program_id(0) // tiles
    row = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    valid = row < h * w
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    t = accumulate(
        g_ptr,
        weight_ptr,
        style_ptr,
        image,
        row // w,
        row % w,
        valid,
        columns,
        hg,
        wg,
        depth,
        width,
        tap_stride,
        depth_stride,
        column_stride,
        first,
        first,
        0,
        0,
        KERNEL,
        KERNEL,
        KERNEL,
        1,
        1 if UP == 2 else -1,
        UP,
        False,
        BM,
        BN,
        BK,
        PRECISION,
        UPCAST,
    )
    inside = columns < width
    mask = valid[:, None] & inside[None, :]
    at = ((image.to(tl.int64) * h * w + row) * width)[:, None] + columns[None, :]
    if STYLE_GRAD:
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(partial_ptr + tl.program_id(0).to(tl.int64) * width + columns, tl.sum(t * x, axis=0), mask=inside)
    if X_GRAD:
        if MODULATED:
            t *= tl.load(style_ptr + image.to(tl.int64) * width + columns, mask=inside, other=0.0).to(tl.float32)[None]
        tl.store(gx_ptr + at, t.to(gx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def weight_gradient_kernel(
    g_ptr,  # [N, hg, wg, O], already times the demodulation
    x_ptr,  # [N, h, w, I]
    style_ptr,  # [N, I]
    partial_ptr,  # [splits, k * k, O, I] fp32
    n,
    hg,
    wg,
    h,
    w,
    out_channels,
    in_channels,
    first,
    per_split,  # blocks of BK pixels
    KERNEL: tl.constexpr,
    UP: tl.constexpr,
    MODULATE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One program, one tap, BM output x BN input channels over a share of the pixels."""
    tiles = tl.cdiv(in_channels, BN)
    rows = tl.program_id(0) // tiles * BM + tl.arange(0, BM)
    columns = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    tap = tl.program_id(1)
    inside_rows = rows < out_channels
    inside_columns = columns < in_channels
    offset_y = first + (tap // KERNEL if UP == 2 else -(tap // KERNEL))
    offset_x = first + (tap % KERNEL if UP == 2 else -(tap % KERNEL))
    per_image = tl.cdiv(h * w, BK)
    begin = tl.program_id(2) * per_split
    end = tl.minimum(begin + per_split, n * per_image)
    acc = tl.zeros((BM, BN), tl.float32)
    for block in range(begin, end):
        image = block // per_image
        pixel = block % per_image * BK + tl.arange(0, BK)
        valid = pixel < h * w
        gy = pixel // w * UP + offset_y
        gx = pixel % w * UP + offset_x
        inside = valid & (gy >= 0) & (gy < hg) & (gx >= 0) & (gx < wg)
        g_at = (image.to(tl.int64) * hg * wg + gy * wg + gx) * out_channels
        g = tl.load(g_ptr + g_at[:, None] + rows[None, :], mask=inside[:, None] & inside_rows[None, :], other=0.0)
        x_at = (image.to(tl.int64) * h * w + pixel) * in_channels
        x_mask = valid[:, None] & inside_columns[None, :]
        x = tl.load(x_ptr + x_at[:, None] + columns[None, :], mask=x_mask, other=0.0)
        if MODULATE:
            style = tl.load(style_ptr + image.to(tl.int64) * in_channels + columns, mask=inside_columns, other=0.0)
            x = (x.to(tl.float32) * style.to(tl.float32)[None, :]).to(x_ptr.dtype.element_ty)
        if UPCAST:
            g = g.to(tl.float32)
            x = x.to(tl.float32)
        acc = tl.dot(tl.trans(g), x, acc, input_precision=PRECISION)
    at = (tl.program_id(2).to(tl.int64) * KERNEL * KERNEL + tap) * out_channels
    at = (at + rows)[:, None] * in_channels + columns[None, :]
    tl.store(partial_ptr + at, acc, mask=inside_rows[:, None] & inside_columns[None, :])
