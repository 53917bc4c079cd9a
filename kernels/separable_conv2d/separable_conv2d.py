"""The public door of separable_conv2d: checks, custom operator, fake, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.bias_act.bias_act_reference import SLOPE
from guide_fast.kernels.separable_conv2d.separable_conv2d_reference import separable_conv2d_reference

ACTIVATIONS = ("linear", "lrelu")
OP = "separable_conv2d"


def separable_conv2d(
    x: Tensor,  # [N, I, H, W]; with haar_style [N, 4I, H/2, W/2]
    depthwise: Tensor | None,  # [I, 1, 3, 3]
    pointwise: Tensor,  # [O, I, 1, 1]
    style: Tensor,  # [N, I]
    *,
    haar_style: Tensor | None = None,  # [N, 4I]
    noise: Tensor | None = None,  # [1 or N, 1, H, W]
    bias: Tensor | None = None,  # [O]
    activation: str = "lrelu",
    gain: float | None = None,
    clamp: float | None = None,
    next_style: Tensor | None = None,  # [N, O]
    impl: str = "auto",
) -> Tensor:
    """clamp(act(pointwise(depthwise(style * u)) + noise + bias) * gain) * next_style, [N, O, H, W] in x's dtype.

    u is x, or `haar(x, haar_style)` where that is given. The depthwise convolution pads by 1; None leaves it out.
    `activation` is "linear" or "lrelu" (slope 0.2); `gain` > 0 defaults to 1, as MobileStyleGAN has none. The layout
    is x's (NHWC is fast); other strides cost a copy. `next_style` is multiplied in the same pass where no gradient is
    recorded. Raises KernelError on bad input, ImplementationUnavailable when `impl` cannot run.
    Source: MobileStyleGAN (arXiv 2104.04767), section 3.
    """
    _check(x, depthwise, pointwise, style, haar_style, noise, bias, next_style)
    if activation not in ACTIVATIONS:
        raise KernelError(f"activation={activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    gain = 1.0 if gain is None else gain
    if not gain > 0:
        raise KernelError(f"gain={gain} is not positive; the backward pass reads the sign of the output")
    if clamp is not None and not clamp >= 0:
        raise KernelError(f"clamp={clamp} is negative; leave it out for none")
    optional: dict[str, Any] = {"haar_style": haar_style, "noise": noise, "bias": bias, "next_style": next_style}
    settings: dict[str, Any] = {"activation": activation, "gain": float(gain), "clamp": clamp}
    chosen = _dispatch.choose(OP, impl, x, BACKENDS)
    if _dispatch.widen_on_cpu(impl, x):
        settings |= {name: None if t is None else t.float() for name, t in optional.items()}
        wide = None if depthwise is None else depthwise.float()
        return separable_conv2d(x.float(), wide, pointwise.float(), style.float(), **settings).to(x.dtype)
    if chosen == "reference":
        return separable_conv2d_reference(x, depthwise, pointwise, style, **optional, **settings)
    # the backward pass reads y before this product
    tensors = (x, depthwise, pointwise, style, *optional.values())
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    weights = (None if t is None else t.contiguous() for t in (haar_style, depthwise, pointwise, style, noise, bias))
    after = None if recorded or next_style is None else next_style.contiguous()
    # rounded as the output is, so that the backward pass sees which elements it held
    limit = -1.0 if clamp is None else torch.tensor(clamp, dtype=x.dtype).item()
    y = torch.ops.guide_fast.separable_conv2d(
        _dispatch.dense(x), *weights, after, activation, SLOPE, float(gain), limit, chosen
    )
    return y * next_style[:, :, None, None] if recorded and next_style is not None else y


def _check(
    x: Tensor,
    depthwise: Tensor | None,
    pointwise: Tensor,
    style: Tensor,
    haar_style: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    next_style: Tensor | None,
) -> None:
    _dispatch.check_tensor(OP, "x", x, (None, None, None, None))
    _dispatch.check_not_empty(OP, "x", x)
    _dispatch.check_tensor(OP, "pointwise", pointwise, (None, None, 1, 1), like=x)
    _dispatch.check_not_empty(OP, "pointwise", pointwise)
    n, channels, h, w = x.shape
    outputs, inputs = pointwise.shape[:2]
    if haar_style is not None:
        _dispatch.check_tensor(OP, "haar_style", haar_style, (n, channels), like=x)
        if channels != 4 * inputs:
            raise KernelError(f"x of {OP} has {channels} channels; with haar_style pointwise takes {4 * inputs}")
        h, w = 2 * h, 2 * w
    elif channels != inputs:
        raise KernelError(f"x of {OP} has {channels} channels but pointwise takes {inputs}")
    _dispatch.check_tensor(OP, "style", style, (n, inputs), like=x)
    if depthwise is not None:
        _dispatch.check_tensor(OP, "depthwise", depthwise, (inputs, 1, 3, 3), like=x)
    if noise is not None:
        _dispatch.check_tensor(OP, "noise", noise, (None, 1, h, w), like=x)
        if len(noise) not in (1, n):
            raise KernelError(f"noise of {OP} has {len(noise)} maps; give 1 or {n}")
    if bias is not None:
        _dispatch.check_tensor(OP, "bias", bias, (outputs,), like=x)
    if next_style is not None:
        _dispatch.check_tensor(OP, "next_style", next_style, (n, outputs), like=x)


def _check_dense(op: str, *tensors: Tensor | None) -> None:
    for t in tensors:
        if t is not None and not t.is_contiguous():
            raise KernelError(f"a tensor {tuple(t.shape)} of torch.ops.guide_fast.{op} is not contiguous; make it so")


@torch.library.custom_op("guide_fast::separable_conv2d", mutates_args=())
def _separable_conv2d(
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
    impl: str,
) -> Tensor:
    if impl == "triton":
        _dispatch.check_operands(OP, x, {"x": (x, x.shape), "pointwise": (pointwise, pointwise.shape)})
        _check(x, depthwise, pointwise, style, haar_style, noise, bias, next_style)
        _check_dense(OP, haar_style, depthwise, pointwise, style, noise, bias, next_style)
    return _dispatch.backend("separable_conv2d", impl, x, BACKENDS).forward(
        x, haar_style, depthwise, pointwise, style, noise, bias, next_style, activation, slope, gain, clamp
    )


@torch.library.custom_op("guide_fast::separable_conv2d_backward", mutates_args=())
def _separable_conv2d_backward(
    gy: Tensor,
    y: Tensor,
    x: Tensor,
    haar_style: Tensor | None,
    depthwise: Tensor | None,
    pointwise: Tensor,
    style: Tensor,
    noise_n: int,
    wanted: list[bool],
    activation: str,
    slope: float,
    gain: float,
    clamp: float,
    impl: str,
) -> list[Tensor]:
    if impl == "triton":
        _check(x, depthwise, pointwise, style, haar_style, None, None, None)
        _check_dense(f"{OP}_backward", haar_style, depthwise, pointwise, style)
        n, up = x.shape[0], 1 if haar_style is None else 2
        shape = (n, pointwise.shape[0], up * x.shape[2], up * x.shape[3])
        _dispatch.check_operands(f"{OP}_backward", x, {"x": (x, x.shape), "y": (y, shape), "gy": (gy, shape)})
        _dispatch.check_alike(f"{OP}_backward", x, {"y": y, "gy": gy})
        if noise_n not in (1, n) or len(wanted) != 7:
            raise KernelError(f"{OP}_backward has noise_n={noise_n}, {len(wanted)} wanted; give 1 or {n}, 7")
    return _dispatch.backend("separable_conv2d_backward", impl, x, BACKENDS).backward(
        gy, y, x, haar_style, depthwise, pointwise, style, noise_n, wanted, activation, slope, gain, clamp
    )


def output(x: Tensor, haar_style: Tensor | None, pointwise: Tensor) -> Tensor:
    """y, not yet written."""
    n, _, h, w = x.shape
    up = 1 if haar_style is None else 2
    return _dispatch.empty((n, pointwise.shape[0], up * h, up * w), x, nhwc=_dispatch.is_nhwc(x))


def gradients(y: Tensor, x: Tensor, pointwise: Tensor, noise_n: int, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of x, haar_style, depthwise, pointwise, style, noise, bias, not yet written; None where not wanted.

    That of x is laid out as x in its dtype, the others are float32.
    """
    n, o, h, w = y.shape
    i = pointwise.shape[1]
    shapes = ((n, 4 * i), (i, 1, 3, 3), (o, i, 1, 1), (n, i), (noise_n, 1, h, w), (o,))
    gx = _dispatch.empty(tuple(x.shape), x, nhwc=_dispatch.is_nhwc(x)) if wanted[0] else None
    sums = (
        _dispatch.empty(shape, x, dtype=torch.float32) if want else None
        for shape, want in zip(shapes, wanted[1:], strict=True)
    )
    return gx, *sums


@_separable_conv2d.register_fake
def _(x: Tensor, haar_style: Any, depthwise: Any, pointwise: Tensor, *rest: Any) -> Tensor:
    return output(x, haar_style, pointwise)


@_separable_conv2d_backward.register_fake
def _(
    gy: Tensor,
    y: Tensor,
    x: Tensor,
    haar_style: Any,
    depthwise: Any,
    pointwise: Tensor,
    style: Tensor,
    noise_n: int,
    wanted: list[bool],
    *rest: Any,
) -> list[Tensor]:
    return [t for t in gradients(y, x, pointwise, noise_n, wanted) if t is not None]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, haar_style, depthwise, pointwise, style, noise = inputs[:6]
    ctx.save_for_backward(output, x, haar_style, depthwise, pointwise, style)
    ctx.noise_n = 1 if noise is None else len(noise)
    ctx.settings = inputs[8:]


def _autograd(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
    y, x, haar_style, depthwise, pointwise, style = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:7])
    gy = gy.contiguous(memory_format=torch.channels_last if _dispatch.is_nhwc(x) else torch.contiguous_format)
    found = iter(
        torch.ops.guide_fast.separable_conv2d_backward(
            gy, y, x, haar_style, depthwise, pointwise, style, ctx.noise_n, wanted, *ctx.settings
        )
    )
    # `next_style` never has a gradient here: the door multiplies outside when one is recorded
    return (*(next(found).to(x.dtype) if want else None for want in wanted), *[None] * 6)


_separable_conv2d.register_autograd(_autograd, setup_context=_setup)


def _native_forward(
    x: Tensor, haar_style: Tensor | None, depthwise: Tensor | None, pointwise: Tensor, *rest: Any
) -> Tensor:
    *tensors, activation, slope, gain, clamp = rest
    y = output(x, haar_style, pointwise)
    torch.ops.guide_fast.native_separable_conv2d(
        x, haar_style, depthwise, pointwise, *tensors, y, _dispatch.is_nhwc(x), activation, slope, gain, clamp
    )
    return y


def _native_backward(
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
    grads = gradients(y, x, pointwise, noise_n, wanted)
    scratch = (None, None)  # the CPU keeps its rows in its caches
    torch.ops.guide_fast.native_separable_conv2d_backward(
        gy, y, x, haar_style, depthwise, pointwise, style, *grads, *scratch, _dispatch.is_nhwc(x), *settings
    )
    return [t for t in grads if t is not None]


def _triton_forward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.separable_conv2d import separable_conv2d_triton

    return separable_conv2d_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> list[Tensor]:
    from guide_fast.kernels.separable_conv2d import separable_conv2d_backward_triton

    return separable_conv2d_backward_triton.backward(*arguments)


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _native_backward),
}
