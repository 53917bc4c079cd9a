"""bias_act as Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch

BLOCK = 1024


@triton.jit
def activate(x, slope, gain, clamp, LRELU: tl.constexpr, CLAMP: tl.constexpr):
    """clamp(act(x) * gain) in fp32."""
    if LRELU:
        x = tl.where(x < 0, x * slope, x)
    x = x * gain
    if CLAMP:
        x = tl.where(x > clamp, clamp, tl.where(x < -clamp, -clamp, x))
    return x


@triton.jit
def activate_slope(y, slope, gain, clamp, LRELU: tl.constexpr, CLAMP: tl.constexpr):
    """dy/dx of `activate` from its output."""
    factor = tl.where(y < 0, slope * gain, gain) if LRELU else tl.full(y.shape, 1.0, tl.float32) * gain
    if CLAMP:
        factor = tl.where((y >= clamp) | (y <= -clamp), 0.0, factor)
    return factor


@triton.jit
def bias_act_forward_kernel(
    x_ptr,  # [outer, channels, inner]
    bias_ptr,  # [channels]
    y_ptr,
    total,
    channels,
    inner,
    slope,
    gain,
    clamp,
    BIAS: tl.constexpr,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, BLOCK elements."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        x += tl.load(bias_ptr + at // inner % channels, mask=inside, other=0.0).to(tl.float32)
    y = activate(x, slope, gain, clamp, LRELU, CLAMP)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def bias_act_backward_kernel(
    gy_ptr,
    y_ptr,
    gx_ptr,
    total,
    slope,
    gain,
    clamp,
    LRELU: tl.constexpr,
    CLAMP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, BLOCK elements."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < total
    y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gy = tl.load(gy_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gx = gy * activate_slope(y, slope, gain, clamp, LRELU, CLAMP)
    tl.store(gx_ptr + at, gx.to(gx_ptr.dtype.element_ty), mask=inside)


def forward(x: Tensor, bias: Tensor | None, activation: str, slope: float, gain: float, clamp: float) -> Tensor:
    """As the door; x dense, clamp negative for none."""
    y = _dispatch.empty(tuple(x.shape), x, nhwc=_dispatch.is_nhwc(x))
    inner = 1 if _dispatch.is_nhwc(x) else x.shape[2] * x.shape[3]
    grid = (triton.cdiv(x.numel(), BLOCK),)
    bias_act_forward_kernel[grid](
        x,
        x if bias is None else bias,
        y,
        x.numel(),
        x.shape[1],
        inner,
        slope,
        gain,
        clamp,
        BIAS=bias is not None,
        LRELU=activation == "lrelu",
        CLAMP=clamp >= 0,
        BLOCK=BLOCK,
    )
    return y


def backward(gy: Tensor, y: Tensor, activation: str, slope: float, gain: float, clamp: float) -> Tensor:
    """Gradient of x; gy laid out as y."""
    gx = _dispatch.empty(tuple(y.shape), y, nhwc=_dispatch.is_nhwc(y))
    bias_act_backward_kernel[(triton.cdiv(y.numel(), BLOCK),)](
        gy, y, gx, y.numel(), slope, gain, clamp, LRELU=activation == "lrelu", CLAMP=clamp >= 0, BLOCK=BLOCK
    )
    return gx


# name -> (kernel, signature of pointers by dtype, constexprs): what bench/compile_report.py compiles
COMPILE = {
    "forward": (
        bias_act_forward_kernel,
        {"x_ptr": "*{T}", "bias_ptr": "*{T}", "y_ptr": "*{T}", "total": "i64", "channels": "i32", "inner": "i32"}
        | dict.fromkeys(("slope", "gain", "clamp"), "fp32"),
        {"BIAS": True, "LRELU": True, "CLAMP": True, "BLOCK": BLOCK},
    ),
    "backward": (
        bias_act_backward_kernel,
        {"gy_ptr": "*{T}", "y_ptr": "*{T}", "gx_ptr": "*{T}", "total": "i64"}
        | dict.fromkeys(("slope", "gain", "clamp"), "fp32"),
        {"LRELU": True, "CLAMP": True, "BLOCK": BLOCK},
    ),
}
