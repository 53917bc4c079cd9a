"""The public door of bias_act: checks, custom operator, fake, autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.bias_act.bias_act_reference import SLOPE, bias_act_reference

RAW = "torch.ops.guide_fast.bias_act"
ACTIVATIONS = {"linear": 1.0, "lrelu": math.sqrt(2)}  # default gains: unit variance after a leaky ReLU


def bias_act(
    x: Tensor,  # [N, C, H, W]
    bias: Tensor | None = None,  # [C]
    *,
    activation: str = "lrelu",
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(act(x + bias) * gain), [N, C, H, W] in x's dtype.

    `activation` is "linear" or "lrelu" (slope 0.2); `gain` > 0 defaults to 1 and sqrt(2). Strides other than NCHW or
    NHWC cost a copy. Raises KernelError on bad input, ImplementationUnavailable when `impl` cannot run.
    Source: StyleGAN2 (arXiv 1912.04958), appendix B.
    """
    _dispatch.check_tensor("bias_act", "x", x, (None, None, None, None))
    _dispatch.check_not_empty("bias_act", "x", x)
    if bias is not None:
        _dispatch.check_tensor("bias_act", "bias", bias, (x.shape[1],), like=x)
    if activation not in ACTIVATIONS:
        raise KernelError(f"activation={activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    gain = ACTIVATIONS[activation] if gain is None else gain
    if not gain > 0:
        raise KernelError(f"gain={gain} is not positive; the backward pass reads the sign of the output")
    if clamp is not None and not clamp >= 0:
        raise KernelError(f"clamp={clamp} is negative; leave it out for none")
    chosen = _dispatch.choose("bias_act", impl, x, BACKENDS)
    if _dispatch.widen_on_cpu(impl, x):
        wide = bias_act(
            x.float(), None if bias is None else bias.float(), activation=activation, gain=gain, clamp=clamp
        )
        return wide.to(x.dtype)
    if chosen == "reference":
        return bias_act_reference(x, bias, activation=activation, gain=gain, clamp=clamp)
    # rounded as the output is, so that the backward pass sees which elements it held
    limit = -1.0 if clamp is None else torch.tensor(clamp, dtype=x.dtype).item()
    vector = None if bias is None else bias.contiguous()
    return torch.ops.guide_fast.bias_act(_dispatch.dense(x), vector, activation, SLOPE, float(gain), limit, chosen)


@torch.library.custom_op("guide_fast::bias_act", mutates_args=())
def _bias_act(
    x: Tensor, bias: Tensor | None, activation: str, slope: float, gain: float, clamp: float, impl: str
) -> Tensor:
    if impl == "triton":
        _dispatch.check_tensor(RAW, "x", x, (None, None, None, None))
        _dispatch.check_operands("bias_act", x, {"x": (x, x.shape), "bias": (bias, (x.shape[1],))})
    return _dispatch.backend("bias_act", impl, x, BACKENDS).forward(x, bias, activation, slope, gain, clamp)


@torch.library.custom_op("guide_fast::bias_act_backward", mutates_args=())
def _bias_act_backward(
    gy: Tensor, y: Tensor, activation: str, slope: float, gain: float, clamp: float, impl: str
) -> Tensor:
    if impl == "triton":
        _dispatch.check_operands("bias_act_backward", y, {"y": (y, y.shape), "gy": (gy, y.shape)})
        _dispatch.check_alike("bias_act_backward", y, {"gy": gy})
    return _dispatch.backend("bias_act_backward", impl, gy, BACKENDS).backward(gy, y, activation, slope, gain, clamp)


@_bias_act.register_fake
def _(x: Tensor, bias: Any, activation: str, slope: float, gain: float, clamp: float, impl: str) -> Tensor:
    return torch.empty_like(x)


@_bias_act_backward.register_fake
def _(gy: Tensor, y: Tensor, activation: str, slope: float, gain: float, clamp: float, impl: str) -> Tensor:
    return torch.empty_like(y)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.settings = inputs[2:]


def _autograd(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
    (y,) = ctx.saved_tensors
    layout = torch.channels_last if _dispatch.is_nhwc(y) else torch.contiguous_format
    gx = torch.ops.guide_fast.bias_act_backward(gy.contiguous(memory_format=layout), y, *ctx.settings)
    gbias = gx.sum(dim=(0, 2, 3), dtype=torch.float32).to(gx.dtype) if ctx.needs_input_grad[1] else None
    return (gx, gbias, *[None] * 5)


_bias_act.register_autograd(_autograd, setup_context=_setup)


def _triton_forward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.bias_act import bias_act_triton

    return bias_act_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.bias_act import bias_act_triton

    return bias_act_triton.backward(*arguments)


def _native_forward(x: Tensor, bias: Tensor | None, activation: str, slope: float, gain: float, clamp: float) -> Tensor:
    nhwc = _dispatch.is_nhwc(x)
    y = _dispatch.empty(tuple(x.shape), x, nhwc=nhwc)
    n, c, h, w = x.shape
    outer, inner = (n * h * w, 1) if nhwc else (n, h * w)
    torch.ops.guide_fast.native_bias_act(x, bias, y, outer, c, inner, activation, slope, gain, clamp)
    return y


def _native_backward(gy: Tensor, y: Tensor, activation: str, slope: float, gain: float, clamp: float) -> Tensor:
    gx = _dispatch.empty(tuple(y.shape), y, nhwc=_dispatch.is_nhwc(y))
    torch.ops.guide_fast.native_bias_act_backward(gy, y, gx, 1, 1, y.numel(), activation, slope, gain, clamp)
    return gx


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _native_backward),
}
