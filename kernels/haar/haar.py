"""The public door of haar: checks, custom operator, fake, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.haar.haar_reference import haar_reference


def haar(
    x: Tensor,  # [N, 4C, H, W]
    style: Tensor | None = None,  # [N, 4C]
    *,
    impl: str = "auto",
) -> Tensor:
    """Inverse Haar wavelet of x * style: [N, C, 2H, 2W] in x's dtype and layout.

    Channel 4c + b is band b (ll, lh, hl, hh) of output c; each output pixel is half the signed sum of the four bands.
    Strides other than NCHW or NHWC cost a copy. Raises KernelError on bad input, ImplementationUnavailable when `impl`
    cannot run. Source: MobileStyleGAN (arXiv 2104.04767), section 3.
    """
    _dispatch.check_tensor("haar", "x", x, (None, None, None, None))
    _dispatch.check_not_empty("haar", "x", x)
    _check_bands("haar", x)
    if style is not None:
        _dispatch.check_tensor("haar", "style", style, (x.shape[0], x.shape[1]), like=x)
    chosen = _dispatch.choose("haar", impl, x, BACKENDS)
    if _dispatch.widen_on_cpu(impl, x):
        return haar(x.float(), None if style is None else style.float()).to(x.dtype)
    if chosen == "reference":
        return haar_reference(x, style)
    style = None if style is None else style.contiguous()
    return torch.ops.guide_fast.haar(_dispatch.dense(x), style, chosen)


def _check_bands(op: str, x: Tensor) -> None:
    if x.shape[1] % 4:
        raise KernelError(f"x of {op} has {x.shape[1]} channels; it takes four bands for each output channel")


def _check_backward(gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_style: bool) -> None:
    op = "haar_backward"
    _dispatch.check_tensor(f"torch.ops.guide_fast.{op}", "gy", gy, (None, None, None, None))
    n, c, h, w = gy.shape
    if h % 2 or w % 2:
        raise KernelError(f"gy of torch.ops.guide_fast.{op} is {h} x {w}; both sides are even")
    if want_style and x is None:
        raise KernelError(f"x of torch.ops.guide_fast.{op} is None; the gradient of style reads it")
    operands = {"gy": (gy, gy.shape), "x": (x, (n, 4 * c, h // 2, w // 2)), "style": (style, (n, 4 * c))}
    _dispatch.check_operands(op, gy, operands)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    for name, t in (("gy", gy), ("x", x)):
        if t is not None and not t.is_contiguous(memory_format=layout):
            raise KernelError(f"{name} of torch.ops.guide_fast.{op} has strides {t.stride()} for nhwc={nhwc}")


@torch.library.custom_op("guide_fast::haar", mutates_args=())
def _haar(x: Tensor, style: Tensor | None, impl: str) -> Tensor:
    if impl == "triton":
        _dispatch.check_tensor("torch.ops.guide_fast.haar", "x", x, (None, None, None, None))
        _check_bands("haar", x)
        _dispatch.check_operands("haar", x, {"x": (x, x.shape), "style": (style, x.shape[:2])})
    return _dispatch.backend("haar", impl, x, BACKENDS).forward(x, style)


@torch.library.custom_op("guide_fast::haar_backward", mutates_args=())
def _haar_backward(
    gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_x: bool, want_style: bool, impl: str
) -> list[Tensor]:
    if impl == "triton":
        _check_backward(gy, x, style, nhwc, want_style)
    return _dispatch.backend("haar_backward", impl, gy, BACKENDS).backward(gy, x, style, nhwc, want_x, want_style)


@_haar.register_fake
def _(x: Tensor, style: Tensor | None, impl: str) -> Tensor:
    return output(x)


@_haar_backward.register_fake
def _(
    gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_x: bool, want_style: bool, impl: str
) -> list[Tensor]:
    return [t for t in gradients(gy, nhwc, want_x, want_style) if t is not None]


def output(x: Tensor) -> Tensor:
    """y, not yet written."""
    n, c, h, w = x.shape
    return _dispatch.empty((n, c // 4, 2 * h, 2 * w), x, nhwc=_dispatch.is_nhwc(x))


def gradients(gy: Tensor, nhwc: bool, want_x: bool, want_style: bool) -> tuple[Tensor | None, Tensor | None]:
    """gx laid out as x, gstyle in float32, not yet written; None for one that is not wanted."""
    n, c, h, w = gy.shape
    gx = _dispatch.empty((n, 4 * c, h // 2, w // 2), gy, nhwc=nhwc) if want_x else None
    return gx, _dispatch.empty((n, 4 * c), gy, dtype=torch.float32) if want_style else None


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, style, ctx.impl = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, style)
    ctx.nhwc = _dispatch.is_nhwc(x)


def _autograd(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
    x, style = ctx.saved_tensors
    want_x, want_style = ctx.needs_input_grad[:2]
    gy = gy.contiguous(memory_format=torch.channels_last if ctx.nhwc else torch.contiguous_format)
    found = iter(torch.ops.guide_fast.haar_backward(gy, x, style, ctx.nhwc, want_x, want_style, ctx.impl))
    gx = next(found) if want_x else None
    return gx, next(found).to(gy.dtype) if want_style else None, None


_haar.register_autograd(_autograd, setup_context=_setup)


def _native_forward(x: Tensor, style: Tensor | None) -> Tensor:
    y = output(x)
    torch.ops.guide_fast.native_haar(x, style, y, _dispatch.is_nhwc(x))
    return y


def _native_backward(
    gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_x: bool, want_style: bool
) -> list[Tensor]:
    gx, gstyle = gradients(gy, nhwc, want_x, want_style)
    torch.ops.guide_fast.native_haar_backward(gy, x, style, gx, gstyle, nhwc)
    return [t for t in (gx, gstyle) if t is not None]


def _triton_forward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.haar import haar_triton

    return haar_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> list[Tensor]:
    from guide_fast.kernels.haar import haar_triton

    return haar_triton.backward(*arguments)


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _native_backward),
}
