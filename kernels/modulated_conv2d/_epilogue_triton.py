"""What surrounds the GEMMs of modulated_conv2d as Triton kernels: epilogue, FIR, backward of the epilogue."""

from __future__ import annotations

import triton
import triton.language as tl

from guide_fast.kernels.bias_act import bias_act_triton

activate = bias_act_triton.activate
activate_slope = bias_act_triton.activate_slope


@triton.jit
def finish(
    acc,  # [BP, BC] fp32
    image,
    pixel,  # [BP] of the output image
    columns,  # [BC]
    valid,  # [BP]
    demod_ptr,  # [N, C] fp32
    noise_ptr,
    bias_ptr,  # [C]
    next_ptr,  # [N, C]
    y_ptr,  # [N, pixels, C]
    pixels,
    channels,
    noise_stride,
    slope,
    gain,
    clamp,
    DEMOD: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    NEXT: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
):
    """y = clamp(act(d * acc + noise + bias) * gain) * next_style, stored."""
    inside = columns < channels
    image = image.to(tl.int64)
    if DEMOD:
        acc *= tl.load(demod_ptr + image * channels + columns, mask=inside, other=0.0)[None, :]
    if NOISE:
        acc += tl.load(noise_ptr + image * noise_stride + pixel, mask=valid, other=0.0).to(tl.float32)[:, None]
    if BIAS:
        acc += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    acc = activate(acc, slope, gain, clamp, LRELU, CLAMP)
    if NEXT:
        acc *= tl.load(next_ptr + image * channels + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    at = ((image * pixels + pixel) * channels)[:, None] + columns[None, :]
    tl.store(y_ptr + at, acc.to(y_ptr.dtype.element_ty), mask=valid[:, None] & inside[None, :])


@triton.jit
def epilogue_kernel(
    z_ptr,  # [N, pixels, C]
    demod_ptr,
    noise_ptr,
    bias_ptr,
    next_ptr,
    y_ptr,
    pixels,
    channels,
    noise_stride,
    slope,
    gain,
    clamp,
    DEMOD: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    NEXT: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """One program, BP pixels of one image x BC channels; follows a dense convolution of up = 1."""
    tiles = tl.cdiv(pixels, BP)
    image = tl.program_id(0) // tiles
    pixel = tl.program_id(0) % tiles * BP + tl.arange(0, BP)
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    valid = pixel < pixels
    at = ((image.to(tl.int64) * pixels + pixel) * channels)[:, None] + columns[None, :]
    z = tl.load(z_ptr + at, mask=valid[:, None] & (columns < channels)[None, :], other=0.0).to(tl.float32)
    finish(
        z,
        image,
        pixel,
        columns,
        valid,
        demod_ptr,
        noise_ptr,
        bias_ptr,
        next_ptr,
        y_ptr,
        pixels,
        channels,
        noise_stride,
        slope,
        gain,
        clamp,
        DEMOD,
        NOISE,
        BIAS,
        NEXT,
        LRELU,
        CLAMP,
    )


@triton.jit
def tap_of(J: tl.constexpr):
    """[1, 3, 3, 1] / 4 at J."""
    return 0.25 if J == 0 or J == 3 else 0.75


@triton.jit
def fir_kernel(
    z_ptr,  # [N, hz, wz, C]
    demod_ptr,
    noise_ptr,
    bias_ptr,
    next_ptr,
    y_ptr,  # [N, hy, wy, C]
    hz,
    wz,
    hy,
    wy,
    channels,
    noise_stride,
    slope,
    gain,
    clamp,
    PADDING: tl.constexpr,
    DEMOD: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    NEXT: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """One program, BP squares of 2 x 2 pixels x BC channels: 25 loads give four outputs of 16 taps each."""
    squares_x = tl.cdiv(wy, 2)
    squares = tl.cdiv(hy, 2) * squares_x
    tiles = tl.cdiv(squares, BP)
    image = tl.program_id(0) // tiles
    square = tl.program_id(0) % tiles * BP + tl.arange(0, BP)
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = columns < channels
    top = square // squares_x * 2
    left = square % squares_x * 2
    z_image = z_ptr + image.to(tl.int64) * hz * wz * channels
    y00 = tl.zeros((BP, BC), tl.float32)
    y01 = tl.zeros((BP, BC), tl.float32)
    y10 = tl.zeros((BP, BC), tl.float32)
    y11 = tl.zeros((BP, BC), tl.float32)
    for j in tl.static_range(5):
        # one row of z, along x
        x0 = tl.zeros((BP, BC), tl.float32)
        x1 = tl.zeros((BP, BC), tl.float32)
        zy = top + j - PADDING
        for i in tl.static_range(5):
            zx = left + i - PADDING
            there = (square < squares) & (zy >= 0) & (zy < hz) & (zx >= 0) & (zx < wz)
            at = (zy * wz + zx).to(tl.int64) * channels
            z = tl.load(z_image + at[:, None] + columns[None, :], mask=there[:, None] & inside[None, :], other=0.0)
            z = z.to(tl.float32)
            if i < 4:
                x0 += z * tap_of(i)
            if i > 0:
                x1 += z * tap_of(i - 1)
        # its share of both rows of the output
        if j < 4:
            y00 += x0 * tap_of(j)
            y01 += x1 * tap_of(j)
        if j > 0:
            y10 += x0 * tap_of(j - 1)
            y11 += x1 * tap_of(j - 1)
    for corner in tl.static_range(4):
        y = top + corner // 2
        x = left + corner % 2
        finish(
            y00 if corner == 0 else y01 if corner == 1 else y10 if corner == 2 else y11,
            image,
            y * wy + x,
            columns,
            (square < squares) & (y < hy) & (x < wy),
            demod_ptr,
            noise_ptr,
            bias_ptr,
            next_ptr,
            y_ptr,
            hy * wy,
            channels,
            noise_stride,
            slope,
            gain,
            clamp,
            DEMOD,
            NOISE,
            BIAS,
            NEXT,
            LRELU,
            CLAMP,
        )


@triton.jit
def epilogue_backward_kernel(
    gy_ptr,  # [N, pixels, C]
    y_ptr,  # [N, pixels, C]
    demod_ptr,  # [N, C] fp32
    noise_ptr,
    bias_ptr,  # [C]
    g_ptr,  # [N, pixels, C]: gradient of the pre-activation times the demodulation
    bias_partial_ptr,  # [N * tiles, C] fp32
    demod_partial_ptr,  # [N * tiles, C] fp32: sums of g * (pre - noise - bias)
    noise_partial_ptr,  # [blocks of channels, N, pixels] fp32
    n,
    pixels,
    channels,
    noise_stride,
    slope,
    gain,
    clamp,
    DEMOD: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    STORE: tl.constexpr,
    BIAS_GRAD: tl.constexpr,
    DEMOD_GRAD: tl.constexpr,
    NOISE_GRAD: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """One program, BP pixels of one image x BC channels."""
    tiles = tl.cdiv(pixels, BP)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BP + tl.arange(0, BP)
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    valid = pixel < pixels
    inside = columns < channels
    mask = valid[:, None] & inside[None, :]
    at = ((image * pixels + pixel) * channels)[:, None] + columns[None, :]
    y = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
    gy = tl.load(gy_ptr + at, mask=mask, other=0.0).to(tl.float32)
    g = gy * activate_slope(y, slope, gain, clamp, LRELU, CLAMP)
    partial = tl.program_id(0).to(tl.int64) * channels + columns
    if BIAS_GRAD:
        tl.store(bias_partial_ptr + partial, tl.sum(g, axis=0), mask=inside)
    if NOISE_GRAD:
        to = (tl.program_id(1).to(tl.int64) * n + image) * pixels + pixel
        tl.store(noise_partial_ptr + to, tl.sum(g, axis=1), mask=valid)
    if DEMOD_GRAD:
        # the pre-activation, from the output; where the clamp held it, g is zero
        pre = y / gain
        if LRELU:
            pre = tl.where(y < 0, pre / slope, pre)
        if NOISE:
            noise = tl.load(noise_ptr + image * noise_stride + pixel, mask=valid, other=0.0)
            pre -= noise.to(tl.float32)[:, None]
        if BIAS:
            pre -= tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
        tl.store(demod_partial_ptr + partial, tl.sum(g * pre, axis=0), mask=inside)
    if STORE:
        if DEMOD:
            g *= tl.load(demod_ptr + image * channels + columns, mask=inside, other=0.0)[None, :]
        tl.store(g_ptr + at, g.to(g_ptr.dtype.element_ty), mask=mask)
