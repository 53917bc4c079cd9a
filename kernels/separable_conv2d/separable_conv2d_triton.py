"""separable_conv2d in Triton, forward: depthwise prologue, tensor-core product, epilogue."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch, _triton
from guide_fast.kernels.bias_act.bias_act_triton import activate
from guide_fast.kernels.haar import haar_triton
from guide_fast.kernels.separable_conv2d.separable_conv2d import output

# of a product behind a prologue: nine pipelined loads of the prologue would fill the shared memory
DEPTH_BITS = tl.constexpr(512)  # of a row of the prologue's block: 32 halves, 16 floats
LAUNCH = {"num_warps": 8, "num_stages": 1}


@triton.jit
def convolve(
    x_ptr,  # an image, pixel p of channel c at p * pixel_stride + c * channel_stride
    depthwise_ptr,  # [channels, 9]
    p,
    c,
    channels,
    height,
    width,
    pixel_stride,
    channel_stride,
    DEPTHWISE: tl.constexpr,
):
    """Depthwise 3x3 of channels c at pixels p in fp32, [pixels, channels]; zeros outside the image."""
    known = c < channels
    if DEPTHWISE:
        row, column = p // width, p % width
        # what differs between the taps is a scalar: nine sets of addresses would not fit the registers
        here = p.to(tl.int64)[:, None] * pixel_stride + c.to(tl.int64)[None, :] * channel_stride
        sums = tl.zeros((p.shape[0], c.shape[0]), tl.float32)
        for dy in tl.static_range(-1, 2):
            inside_y = (row + dy >= 0) & (row + dy < height) & (row < height)
            for dx in tl.static_range(-1, 2):
                inside = inside_y & (column + dx >= 0) & (column + dx < width)
                tap = tl.load(depthwise_ptr + c * 9 + dy * 3 + dx + 4, mask=known, other=0.0).to(tl.float32)
                there = x_ptr + (dy * width + dx) * pixel_stride
                x = tl.load(there + here, mask=inside[:, None] & known[None, :], other=0.0)
                sums += x.to(tl.float32) * tap[None, :]
        return sums
    else:
        at = p.to(tl.int64)[:, None] * pixel_stride + c.to(tl.int64)[None, :] * channel_stride
        inside = p < height * width
        return tl.load(x_ptr + at, mask=inside[:, None] & known[None, :], other=0.0).to(tl.float32)


@triton.jit
def multiply(a, b, sums, DTYPE: tl.constexpr, UPCAST: tl.constexpr, TF32: tl.constexpr):
    """sums + a b: operands rounded to DTYPE, as the tensor cores take them, sums in fp32."""
    a, b = a.to(DTYPE), b.to(DTYPE)
    if UPCAST:  # the interpreter multiplies the bits of a bf16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="tf32" if TF32 else "ieee")


@triton.jit
def separable_conv2d_kernel(
    x_ptr,  # [N, I, H, W]
    depthwise_ptr,  # [I, 9]
    pointwise_ptr,  # [O, I]
    style_ptr,  # [N, I]
    noise_ptr,  # [1 or N, H, W]
    bias_ptr,  # [O]
    next_style_ptr,  # [N, O]
    y_ptr,  # [N, O, H, W]
    inputs,
    outputs,
    height,
    width,
    x_pixel,  # strides; that of a channel is the size of the image or 1
    x_channel,
    y_pixel,
    y_channel,
    noise_image,
    slope,
    gain,
    clamp,
    DEPTHWISE: tl.constexpr,
    NOISE: tl.constexpr,
    BIAS: tl.constexpr,
    NEXT_STYLE: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    UPCAST: tl.constexpr,
    TF32: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """One program, PIXELS pixels of an image by OUTPUTS channels."""
    INPUTS: tl.constexpr = DEPTH_BITS // x_ptr.dtype.element_ty.primitive_bitwidth
    n = tl.program_id(2).to(tl.int64)
    size = height * width
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    x_ptr += n * size * inputs
    sums = tl.zeros((PIXELS, OUTPUTS), tl.float32)
    # accumulate over input channels
    for first in range(0, inputs, INPUTS):
        i = first + tl.arange(0, INPUTS)
        v = convolve(x_ptr, depthwise_ptr, p, i, inputs, height, width, x_pixel, x_channel, DEPTHWISE)
        v *= tl.load(style_ptr + n * inputs + i, mask=i < inputs, other=0.0).to(tl.float32)[None, :]
        at = o.to(tl.int64)[None, :] * inputs + i[:, None]
        w = tl.load(pointwise_ptr + at, mask=(i < inputs)[:, None] & (o < outputs)[None, :], other=0.0)
        sums = multiply(v, w, sums, x_ptr.dtype.element_ty, UPCAST, TF32)
    # epilogue
    if NOISE:
        noise = tl.load(noise_ptr + n * noise_image + p, mask=p < size, other=0.0)
        sums += noise.to(tl.float32)[:, None]
    if BIAS:
        sums += tl.load(bias_ptr + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    y = activate(sums, slope, gain, clamp, LRELU, CLAMP)
    if NEXT_STYLE:
        y *= tl.load(next_style_ptr + n * outputs + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    y_ptr += n * size * outputs
    at = p.to(tl.int64)[:, None] * y_pixel + o.to(tl.int64)[None, :] * y_channel
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=(p < size)[:, None] & (o < outputs)[None, :])


def block(size: int, most: int) -> int:
    """A block length that tensor cores take, from 16 up to `most`."""
    return min(max(16, triton.next_power_of_2(size)), most)


def pixels_block(size: int, half: bool, wide: bool) -> int:
    """Pixels of a program: halves on mma.sync keep twice as many operands in registers, so fewer of them."""
    return block(size, 32 if half and not wide else 64)


def strides(nhwc: bool, channels: int, size: int) -> tuple[int, int]:
    """Of a pixel, of a channel."""
    return (channels, 1) if nhwc else (1, size)


def product(x: Tensor) -> dict[str, bool]:
    """How tl.dot multiplies elements of x."""
    return {"UPCAST": _triton.interpreted() and x.dtype == torch.bfloat16, "TF32": _triton.allows_tf32(x)}


def forward(
    x: Tensor,
    haar_style: Tensor | None,
    depthwise: Tensor | None,
    pointwise: Tensor,
    style: Tensor,
    noise: Tensor | None,
    bias: Tensor | None,
    next_style: Tensor | None,
    activation: str,
    slope: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """As the door; x dense, clamp negative for none."""
    nhwc = _dispatch.is_nhwc(x)
    y = output(x, haar_style, pointwise)
    if haar_style is not None:
        x = haar_triton.forward(x, haar_style)
    n, i, h, w = x.shape
    o = pointwise.shape[0]
    half, wide = x.dtype in _dispatch.HALVES, _triton.has_wide_products(x)
    shape = {"PIXELS": pixels_block(h * w, half, wide), "OUTPUTS": block(o, 128)}
    grid = (triton.cdiv(h * w, shape["PIXELS"]), triton.cdiv(o, shape["OUTPUTS"]), n)
    separable_conv2d_kernel[grid](
        x,
        x if depthwise is None else depthwise,
        pointwise,
        style,
        x if noise is None else noise,
        x if bias is None else bias,
        x if next_style is None else next_style,
        y,
        i,
        o,
        h,
        w,
        *strides(nhwc, i, h * w),
        *strides(nhwc, o, h * w),
        0 if noise is None or len(noise) == 1 else h * w,
        slope,
        gain,
        clamp,
        DEPTHWISE=depthwise is not None,
        NOISE=noise is not None,
        BIAS=bias is not None,
        NEXT_STYLE=next_style is not None,
        LRELU=activation == "lrelu",
        CLAMP=clamp >= 0,
        **product(x),
        **shape,
        **LAUNCH,
    )
    return y


_INTEGERS = ("inputs", "outputs", "height", "width", "x_pixel", "x_channel", "y_pixel", "y_channel", "noise_image")
_FORMS = {  # suffix -> whether half precision, where
    "": (True, _triton.WIDE),
    "_mma_sync": (True, _triton.NARROW),
    "_fp32": (False, _triton.WIDE + _triton.NARROW),
}

COMPILE = {
    f"forward_{name}{suffix}": (
        separable_conv2d_kernel,
        dict.fromkeys(("x_ptr", "depthwise_ptr", "pointwise_ptr", "style_ptr"), "*{T}")
        | dict.fromkeys(("noise_ptr", "bias_ptr", "next_style_ptr", "y_ptr"), "*{T}")
        | dict.fromkeys(_INTEGERS, "i32")
        | dict.fromkeys(("slope", "gain", "clamp"), "fp32"),
        dict.fromkeys(("NOISE", "BIAS", "NEXT_STYLE", "LRELU", "CLAMP"), True)
        | {"DEPTHWISE": True, "UPCAST": False, "TF32": True, "OUTPUTS": 128}
        | {"PIXELS": pixels_block(4096, half, archs == _triton.WIDE)}
        | ({"x_channel": 1, "y_channel": 1} if name == "nhwc" else {"x_pixel": 1, "y_pixel": 1}),
        LAUNCH | {"archs": archs, "dtypes": ("fp16", "bf16") if half else ("fp32",)},
    )
    for name in ("nhwc", "nchw")
    for suffix, (half, archs) in _FORMS.items()
}
