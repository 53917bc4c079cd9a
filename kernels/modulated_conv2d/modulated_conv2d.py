"""The public door of modulated_conv2d: checks, then the implementation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.modulated_conv2d import _operator
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import SLOPE, modulated_conv2d_reference

OP = "modulated_conv2d"
ACTIVATIONS = {"linear": 1.0, "lrelu": math.sqrt(2)}  # default gains: unit variance after a leaky ReLU


def modulated_conv2d(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k], k 1 or 3
    style: Tensor,  # [N, I]
    *,
    noise: Tensor | None = None,  # [N or 1, 1, H', W'], already scaled
    bias: Tensor | None = None,  # [O]
    up: int = 1,
    demodulate: bool = True,
    premodulated: bool = False,
    activation: str = "lrelu",
    gain: float | None = None,
    clamp: float | None = None,
    next_style: Tensor | None = None,  # [N, O]
    pointwise: Tensor | None = None,  # [O, I, 1, 1]; weight is then [I, 1, 3, 3]
    impl: str = "auto",
) -> Tensor:
    """clamp(act(d * conv(s * x, W) + noise + bias) * gain) * next_style, [N, O, up * H, up * W] in x's dtype.

    d = rsqrt(sum over I, k, k of (s W)^2 + 1e-8), or 1 without `demodulate`. `up=2` is StyleGAN2's: transposed
    convolution of stride 2, then the FIR [1, 3, 3, 1] with gain 4. `premodulated` says that x already carries the style
    (the layer before multiplied it as its `next_style`), which then only demodulates. `activation` is "linear" or
    "lrelu" (slope 0.2); `gain` > 0 defaults to 1 and sqrt(2), but with `pointwise` to 1 for both. `next_style` is fused
    where no gradient is recorded; else it is multiplied after the operator. With `pointwise` the layer is separable
    (see separable_conv2d), which MobileStyleGAN's layers are: they have no gain after their leaky ReLU. Kernels work
    in NHWC and return it; other strides cost a copy. Second derivatives need impl="reference". Raises KernelError on
    bad input, ImplementationUnavailable when `impl` cannot run. Source: StyleGAN2 (arXiv 1912.04958), section 2.
    """
    if pointwise is not None:
        if demodulate or up != 1 or premodulated:
            raise KernelError(
                f"pointwise takes demodulate=False, up=1, premodulated=False; got {demodulate}, {up}, {premodulated}"
            )
        from guide_fast.kernels.separable_conv2d import separable_conv2d

        return separable_conv2d.separable_conv2d(
            x,
            weight,
            pointwise,
            style,
            noise=noise,
            bias=bias,
            activation=activation,
            gain=gain,
            clamp=clamp,
            next_style=next_style,
            impl=impl,
        )
    _check(x, weight, style, noise, bias, next_style, up)
    gain = _check_activation(activation, gain, clamp)
    # a GPU's choice is measured below; on a CPU PyTorch's dense convolution wins, between native passes
    chosen = _dispatch.choose(OP, impl, x, _operator.BACKENDS, prefer=lambda able: "auto", slow_cpu=True)
    dtype = x.dtype
    if _dispatch.widen_on_cpu(impl, x):
        x, weight, style = x.float(), weight.float(), style.float()
        noise, bias, next_style = (None if t is None else t.float() for t in (noise, bias, next_style))
    if dtype == torch.float16 and demodulate:
        weight, style = _normalised(weight, style, premodulated)
    tangent = torch.autograd.forward_ad.unpack_dual(x).tangent
    plain = tangent is not None or _dispatch.plain()
    if chosen == "reference" and impl == "auto" and not plain and _operator.dense_on_cpu(x):
        chosen = _operator.fastest_on_cpu(x, weight, up)
    if chosen == "reference":
        y = modulated_conv2d_reference(
            x,
            weight,
            style,
            noise=noise,
            bias=bias,
            next_style=next_style,
            up=up,
            demodulate=demodulate,
            premodulated=premodulated,
            activation=activation,
            gain=gain,
            clamp=clamp,
        )
        return y.to(dtype)
    style = style.contiguous()
    noise, bias, next_style = (None if t is None else t.contiguous() for t in (noise, bias, next_style))
    inputs = (_nhwc(x), weight, style, noise, bias)
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*inputs, next_style))
    limit = -1.0 if clamp is None else float(clamp)
    settings = (up, demodulate, premodulated, activation, SLOPE, float(gain), limit)
    if chosen == "auto":
        chosen = _operator.fastest(inputs, settings, recorded)
    if not recorded:
        return torch.ops.guide_fast.modulated_conv2d(*inputs, next_style, *settings, chosen)[0].to(dtype)
    y = torch.ops.guide_fast.modulated_conv2d(*inputs, None, *settings, chosen)[0]
    return (y if next_style is None else y * next_style[:, :, None, None]).to(dtype)


def _check(x: Tensor, weight: Any, style: Any, noise: Any, bias: Any, next_style: Any, up: int) -> None:
    _dispatch.check_tensor(OP, "x", x, (None, None, None, None))
    _dispatch.check_not_empty(OP, "x", x)
    n, channels, h, w = x.shape
    _dispatch.check_tensor(OP, "weight", weight, (None, channels, None, None), like=x)
    _dispatch.check_not_empty(OP, "weight", weight)
    out, k = weight.shape[0], weight.shape[2]
    if k not in (1, 3) or weight.shape[3] != k:
        raise KernelError(f"weight of {OP} has shape {tuple(weight.shape)}; its kernel is 1 x 1 or 3 x 3")
    if up not in (1, 2):
        raise KernelError(f"up={up} is not known to {OP}; choose 1 or 2")
    _dispatch.check_tensor(OP, "style", style, (n, channels), like=x)
    if noise is not None:
        _dispatch.check_tensor(OP, "noise", noise, (None, 1, up * h, up * w), like=x)
        if noise.shape[0] not in (1, n):
            raise KernelError(f"noise of {OP} has a batch of {noise.shape[0]}; it takes 1 or x's {n}")
    if bias is not None:
        _dispatch.check_tensor(OP, "bias", bias, (out,), like=x)
    if next_style is not None:
        _dispatch.check_tensor(OP, "next_style", next_style, (n, out), like=x)


def _check_activation(activation: str, gain: float | None, clamp: float | None) -> float:
    if activation not in ACTIVATIONS:
        raise KernelError(f"activation={activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    gain = ACTIVATIONS[activation] if gain is None else gain
    if not gain > 0:
        raise KernelError(f"gain={gain} is not positive; the backward pass reads the sign of the output")
    if clamp is not None and not clamp >= 0:
        raise KernelError(f"clamp={clamp} is negative; leave it out for none")
    return gain


def _normalised(weight: Tensor, style: Tensor, premodulated: bool) -> tuple[Tensor, Tensor]:
    """Both so small that sums over I, k, k stay finite in fp16; the demodulation takes the factors out again.

    The factors are powers of two, which round nothing, and constants in the backward pass: the output does not depend
    on them.
    """
    weight = weight * _power_of_two(weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True), weight[0].numel())
    return weight, style if premodulated else style * _power_of_two(style.detach().abs().amax(dim=1, keepdim=True), 1)


def _power_of_two(largest: Tensor, terms: int) -> Tensor:
    """About 1 / (largest * sqrt(terms)) within what fp16 holds."""
    return torch.exp2(-(largest.float() * math.sqrt(terms)).log2().ceil().clamp(-15, 14)).to(largest.dtype)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
