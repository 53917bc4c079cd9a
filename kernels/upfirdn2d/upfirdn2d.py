"""The public door of upfirdn2d: checks, custom operator, fake, autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.upfirdn2d.upfirdn2d_reference import upfirdn2d_reference

Pair = int | Sequence[int]  # one number for both axes, or (x, y)

SEPARABLE_FROM = 8  # taps from which two passes of k beat one pass of k * k: `setup_filter`'s choice


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,  # [kh, kw], or [k] for both axes in turn; None: the identity
    *,
    up: Pair = 1,
    down: Pair = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Insert up - 1 zeros after each pixel, pad, filter with f * gain, keep every down-th pixel.

    [N, C, H, W] -> [N, C, (H * up + top + bottom - kh) // down + 1, ...] in x's dtype, laid out as x. `padding` is one
    number, (x, y) or (left, right, top, bottom), counted in pixels after up-sampling; negative numbers crop. The
    default convolves; `flip_filter` correlates. f is a constant of any float dtype: it has no gradient. Raises
    KernelError on bad input, ImplementationUnavailable when `impl` cannot run.
    Source: StyleGAN2 (arXiv 1912.04958), appendix B; polyphase decomposition in the README.
    """
    _dispatch.check_tensor("upfirdn2d", "x", x, (None, None, None, None))
    _dispatch.check_not_empty("upfirdn2d", "x", x)
    if f is not None:
        _check_filter(f, x)
    up_x, up_y = _factors("up", up)
    down_x, down_y = _factors("down", down)
    left, right, top, bottom = _padding(padding)
    chosen = _dispatch.choose("upfirdn2d", impl, x, BACKENDS)
    if _dispatch.widen_on_cpu(impl, x):
        pads = (left, right, top, bottom)
        ups, downs = (up_x, up_y), (down_x, down_y)
        y = upfirdn2d(x.float(), f, up=ups, down=downs, padding=pads, flip_filter=flip_filter, gain=gain)
        return y.to(x.dtype)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    f = torch.ones(1, 1, dtype=wide, device=x.device) if f is None else f.detach().to(wide)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    height, width = f.shape if f.ndim == 2 else (f.shape[0], f.shape[0])
    out_h = _size("high", x.shape[2], up_y, down_y, top, bottom, height)
    out_w = _size("wide", x.shape[3], up_x, down_x, left, right, width)
    if chosen == "reference":
        pads = (left, right, top, bottom)
        y = upfirdn2d_reference(x, f, up=(up_x, up_y), down=(down_x, down_y), padding=pads, gain=gain)
        return y.contiguous(memory_format=torch.channels_last) if _dispatch.is_nhwc(x) else y.contiguous()
    x = _dispatch.dense(x)
    if f.ndim == 1 and height >= SEPARABLE_FROM:
        # along y last: its taps are whole rows, so the larger half of the work runs on contiguous memory
        row = torch.ops.guide_fast.upfirdn2d(x, f[None], x.shape[2], out_w, up_x, 1, down_x, 1, left, 0, chosen)
        column = (f * gain)[:, None]
        return torch.ops.guide_fast.upfirdn2d(row, column, out_h, out_w, 1, up_y, 1, down_y, 0, top, chosen)
    f = (torch.outer(f, f) if f.ndim == 1 else f) * gain
    return torch.ops.guide_fast.upfirdn2d(x, f, out_h, out_w, up_x, up_y, down_x, down_y, left, top, chosen)


def setup_filter(
    f: Tensor | Sequence[Any] | float,  # [kh, kw], [k] or one number
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The fp32 filter for `upfirdn2d`: of sum `gain`, [k] where two passes pay, else [kh, kw].

    `separable=None` keeps [k] from 8 taps on; True needs [k]. `normalize` divides by the sum; for a [k] filter the
    root of `gain` is folded in, since both axes use it.
    """
    f = torch.as_tensor(f, dtype=torch.float32, device=device)
    if f.ndim > 2 or f.numel() == 0:
        raise KernelError(f"f of setup_filter has shape {tuple(f.shape)}; give [kh, kw], [k] or one number, not empty")
    f = f[None] if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and len(f) >= SEPARABLE_FROM
    if separable and f.ndim != 1:
        raise KernelError(f"separable=True needs a filter [k]; f has shape {tuple(f.shape)}")
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        if f.sum() == 0:
            raise KernelError("f of setup_filter sums to 0; pass normalize=False")
        f = f / f.sum()
    return (f.flip(list(range(f.ndim))) if flip_filter else f) * gain ** (f.ndim / 2)


def upsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    *,
    up: Pair = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """[N, C, H * up, W * up] (+ padding) of the same brightness: the filter's gain grows by up_x * up_y."""
    up_x, up_y = _factors("up", up)
    left, right, top, bottom = _padding(padding)
    width, height = _taps(f)
    pads = (
        left + (width + up_x - 1) // 2,
        right + (width - up_x) // 2,
        top + (height + up_y - 1) // 2,
        bottom + (height - up_y) // 2,
    )
    gain = gain * up_x * up_y
    return upfirdn2d(x, f, up=(up_x, up_y), padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def downsample2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    *,
    down: Pair = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """[N, C, H / down, W / down] (+ padding), low-passed by f first."""
    down_x, down_y = _factors("down", down)
    left, right, top, bottom = _padding(padding)
    width, height = _taps(f)
    pads = (
        left + (width - down_x + 1) // 2,
        right + (width - down_x) // 2,
        top + (height - down_y + 1) // 2,
        bottom + (height - down_y) // 2,
    )
    return upfirdn2d(x, f, down=(down_x, down_y), padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def filter2d(
    x: Tensor,  # [N, C, H, W]
    f: Tensor | None,
    *,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """[N, C, H, W] (+ padding), filtered in place: outside the image there are zeros."""
    left, right, top, bottom = _padding(padding)
    width, height = _taps(f)
    pads = (left + width // 2, right + (width - 1) // 2, top + height // 2, bottom + (height - 1) // 2)
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def _check_filter(f: Tensor, x: Tensor) -> None:
    shape: tuple[int | None, ...] = (None,) if isinstance(f, Tensor) and f.ndim == 1 else (None, None)
    _dispatch.check_tensor("upfirdn2d", "f", f, shape)
    _dispatch.check_not_empty("upfirdn2d", "f", f)
    if f.device != x.device:
        raise KernelError(f"f of upfirdn2d is on {f.device} but x is on {x.device}; move it there")
    if f.requires_grad:
        raise KernelError(f"f of upfirdn2d {tuple(f.shape)} requires a gradient; it is a constant here, detach it")


def _factors(name: str, value: Pair) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(factor, int) and factor >= 1 for factor in pair):
        raise KernelError(f"{name}={value} of upfirdn2d is not a whole number from 1 on, nor (x, y) of such")
    return pair


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    pads = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(pads) not in (1, 2, 4) or not all(isinstance(pad, int) for pad in pads):
        raise KernelError(
            f"padding={value} of upfirdn2d is neither a whole number, nor (x, y), nor (left, right, top, bottom)"
        )
    if len(pads) == 4:
        return pads
    return pads[0], pads[0], pads[-1], pads[-1]


def _taps(f: Tensor | None) -> tuple[int, int]:
    if f is None:
        return 1, 1
    return f.shape[-1], f.shape[0]


def _size(side: str, size: int, up: int, down: int, before: int, after: int, taps: int) -> int:
    padded = size * up + before + after
    if padded < taps:
        raise KernelError(
            f"f of upfirdn2d is {taps} {side}, the padded image only {padded} "
            f"({size} * {up} + {before} + {after}); pad more or crop less"
        )
    return (padded - taps) // down + 1


@torch.library.custom_op("guide_fast::upfirdn2d", mutates_args=())
def _upfirdn2d(
    x: Tensor,
    f: Tensor,  # [kh, kw] fp32 as correlation, gain folded in
    out_h: int,
    out_w: int,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    left: int,
    top: int,
    impl: str,
) -> Tensor:
    if impl == "triton":
        op = "torch.ops.guide_fast.upfirdn2d"
        _dispatch.check_tensor(op, "x", x, (None, None, None, None))
        _dispatch.check_tensor(op, "f", f, (None, None))
        _dispatch.check_operands("upfirdn2d", x, {"x": (x, x.shape)})
        if f.device != x.device or f.dtype != torch.float32:
            raise KernelError(f"f of {op} is {f.dtype} on {f.device}; give float32 on {x.device}")
        if min(out_h, out_w, up_x, up_y, down_x, down_y, *x.shape, *f.shape) < 1:
            sizes = (out_h, out_w, up_x, up_y, down_x, down_y)
            raise KernelError(f"{op} has sizes, factors {sizes} for x {tuple(x.shape)}; each is at least 1")
    return _dispatch.backend("upfirdn2d", impl, x, BACKENDS).forward(
        x, f, out_h, out_w, up_x, up_y, down_x, down_y, left, top
    )


@_upfirdn2d.register_fake
def _(x: Tensor, f: Tensor, out_h: int, out_w: int, *settings: Any) -> Tensor:
    return _dispatch.empty((x.shape[0], x.shape[1], out_h, out_w), x, nhwc=_dispatch.is_nhwc(x))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, *_ = inputs
    ctx.save_for_backward(f)
    ctx.settings = (x.shape[2], x.shape[3], *inputs[4:])


def _autograd(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
    # linear in x: the gradient is the operation itself, so it can be differentiated again
    (f,) = ctx.saved_tensors
    in_h, in_w, up_x, up_y, down_x, down_y, left, top, impl = ctx.settings
    left, top = f.shape[1] - 1 - left, f.shape[0] - 1 - top
    swapped = (down_x, down_y, up_x, up_y, left, top, impl)
    gx = torch.ops.guide_fast.upfirdn2d(_dispatch.dense(gy), f.flip(0, 1), in_h, in_w, *swapped)
    return (gx, *[None] * 10)


_upfirdn2d.register_autograd(_autograd, setup_context=_setup)


def _triton_forward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.upfirdn2d import upfirdn2d_triton

    return upfirdn2d_triton.forward(*arguments)


def _native_forward(x: Tensor, f: Tensor, out_h: int, out_w: int, *settings: int) -> Tensor:
    nhwc = _dispatch.is_nhwc(x)
    y = _dispatch.empty((x.shape[0], x.shape[1], out_h, out_w), x, nhwc=nhwc)
    torch.ops.guide_fast.native_upfirdn2d(x, f.contiguous(), y, list(x.shape), out_h, out_w, nhwc, *settings)
    return y


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_forward),
    "cuda": Backend(_native_forward, _native_forward),
    "cpu": Backend(_native_forward, _native_forward),
}
