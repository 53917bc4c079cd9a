"""The public door of feature_distance: checks, custom operators, fakes, autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import ImplementationUnavailable, KernelError
from guide_fast.kernels.feature_distance.feature_distance_reference import feature_distance_reference

MOST_TAPS = 16
PIXELS = 128  # of a block of the native path, as GF_FEATURE_PIXELS


def feature_distance(
    taps_a: Sequence[Tensor],  # each [N, C, H, W]
    taps_b: Sequence[Tensor],  # each [N, C, H, W], or [1, C, H, W] for all N; the teacher's
    *,
    weights: Sequence[Tensor | float] | None = None,  # each [C], or all numbers
    normalised_b: bool = False,
    eps: float = 1e-10,
    impl: str = "auto",
) -> Tensor:
    """Perceptual distance of feature maps, [N] in float32: 0 is alike.

    At each pixel the channels are scaled to unit length (`eps` is added to the squared length; with `normalised_b`
    taps_b are taken as they are); their squared difference, weighted, is summed over channels, averaged over space,
    summed over taps. No scaled map is stored. First derivatives only; a gradient of `weights` comes from the reference
    alone. Strides other than NCHW or NHWC cost a copy, as does a tap of b laid out unlike its tap of a. Raises
    KernelError on bad input, ImplementationUnavailable when `impl` cannot run. Source: LPIPS (arXiv 1801.03924),
    equation 1.
    """
    taps_a, taps_b = list(taps_a), list(taps_b)
    _check(taps_a, taps_b, weights, eps)
    if _dispatch.widen_on_cpu(impl, taps_a[0]):
        taps_a, taps_b = [tap.float() for tap in taps_a], [tap.float() for tap in taps_b]
    chosen = _dispatch.choose("feature_distance", impl, taps_a[0], BACKENDS)
    learned = weights is not None and any(isinstance(w, Tensor) and w.requires_grad for w in weights)
    if learned and impl not in ("auto", "reference"):
        raise ImplementationUnavailable(
            f"feature_distance cannot run with impl={impl!r}: weights ask for a gradient, which only the reference "
            "computes; use 'auto' or detach them"
        )
    if chosen == "reference" or learned:
        return feature_distance_reference(taps_a, taps_b, weights=weights, normalised_b=normalised_b, eps=eps)
    a = [_dispatch.dense(tap) for tap in taps_a]
    b = [_laid_out_as(x, y) for x, y in zip(a, taps_b, strict=True)]
    vectors = [w.to(torch.float32).contiguous() for w in weights or () if isinstance(w, Tensor)]
    scales = [1.0] * len(a) if weights is None or vectors else [float(w) for w in weights]
    return torch.ops.guide_fast.feature_distance(a, b, vectors, scales, normalised_b, float(eps), chosen)


def _check(a: list[Tensor], b: list[Tensor], weights: Sequence[Tensor | float] | None, eps: float) -> None:
    op = "feature_distance"
    if not 1 <= len(a) <= MOST_TAPS:
        raise KernelError(f"taps_a of {op} has {len(a)} taps; give 1 to {MOST_TAPS}")
    if len(b) != len(a):
        raise KernelError(f"taps_b of {op} has {len(b)} taps but taps_a has {len(a)}; give as many")
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        _dispatch.check_tensor(op, f"taps_a[{i}]", x, (None, None, None, None), like=a[0])
        _dispatch.check_not_empty(op, f"taps_a[{i}]", x)
        if len(x) != len(a[0]):
            raise KernelError(f"taps_a[{i}] of {op} has {len(x)} images but taps_a[0] has {len(a[0])}; give as many")
        shape = tuple(x.shape)
        _dispatch.check_tensor(op, f"taps_b[{i}]", y, (None, *shape[1:]), like=x)
        if len(y) not in (1, len(x)):
            raise KernelError(f"taps_b[{i}] of {op} has {len(y)} images; give 1 or the {len(x)} of taps_a")
    if not eps > 0:
        raise KernelError(f"eps={eps} is not positive; a pixel without features would divide by zero")
    if weights is None:
        return
    if len(weights) != len(a):
        raise KernelError(f"weights of {op} has {len(weights)} entries for {len(a)} taps; give as many")
    if len({isinstance(w, Tensor) for w in weights}) > 1:
        raise KernelError(f"weights of {op} mixes tensors with numbers; give all [C] or all numbers")
    for i, (x, w) in enumerate(zip(a, weights, strict=True)):
        if isinstance(w, Tensor):
            _dispatch.check_tensor(op, f"weights[{i}]", w, (x.shape[1],))
            if w.device != x.device:
                raise KernelError(f"weights[{i}] of {op} is on {w.device} but taps_a on {x.device}; move it there")


def _check_taps(op: str, a: list[Tensor], b: list[Tensor], weights: list[Tensor], scales: list[float]) -> None:
    """What the kernels read without looking."""
    raw, taps = f"torch.ops.guide_fast.{op}", len(a)
    if not 1 <= taps <= MOST_TAPS or len(b) != taps or len(scales) != taps or len(weights) not in (0, taps):
        counts = f"{taps} taps of a, {len(b)} of b, {len(scales)} scales, {len(weights)} weights"
        raise KernelError(f"{raw} has {counts}; give as many of each, 1 to {MOST_TAPS}, or no weights")
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        _dispatch.check_tensor(raw, f"a[{i}]", x, (len(a[0]), None, None, None))
        images = 1 if y.ndim == 4 and len(y) == 1 else len(x)
        operands: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
            f"a[{i}]": (x, x.shape),
            f"b[{i}]": (y, (images, *x.shape[1:])),
        }
        _dispatch.check_operands(op, a[0], operands)
        _dispatch.check_alike(op, x, {f"b[{i}]": y})
    for i, w in enumerate(weights):
        if w.shape != a[i].shape[1:2] or w.dtype != torch.float32 or w.device != a[0].device or not w.is_contiguous():
            wanted = f"({a[i].shape[1]},) torch.float32 on {a[0].device}, contiguous"
            raise KernelError(f"weights[{i}] of {raw} is {tuple(w.shape)} {w.dtype} on {w.device}; it takes {wanted}")


def _laid_out_as(a: Tensor, b: Tensor) -> Tensor:
    if b.requires_grad and len(b) < len(a):
        b = b.expand(len(a), -1, -1, -1)  # autograd sums over the images
    return b.contiguous(memory_format=torch.channels_last if _dispatch.is_nhwc(a) else torch.contiguous_format)


@torch.library.custom_op("guide_fast::feature_distance", mutates_args=())
def _feature_distance(
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
    impl: str,
) -> Tensor:
    _check_taps("feature_distance", a, b, weights, scales)
    return _dispatch.backend("feature_distance", impl, a[0], BACKENDS).forward(a, b, weights, scales, normalised, eps)


@torch.library.custom_op("guide_fast::feature_distance_backward", mutates_args=())
def _feature_distance_backward(
    gout: Tensor,
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
    need_a: bool,
    need_b: bool,
    impl: str,
) -> list[Tensor]:
    """Gradients of a, then of b, those that are needed."""
    _check_taps("feature_distance_backward", a, b, weights, scales)
    if gout.shape != a[0].shape[:1] or gout.dtype != torch.float32 or gout.device != a[0].device:
        raise KernelError(
            f"gout of torch.ops.guide_fast.feature_distance_backward is {tuple(gout.shape)} {gout.dtype} on "
            f"{gout.device}; it takes ({len(a[0])},) torch.float32 on {a[0].device}"
        )
    ga = [_empty_like(tap) for tap in a] if need_a else []
    gb = [_empty_like(tap) for tap in a] if need_b else []
    _dispatch.backend("feature_distance_backward", impl, a[0], BACKENDS).backward(
        gout, a, b, weights, ga, gb, scales, normalised, eps
    )
    return ga + gb


def _empty_like(tap: Tensor) -> Tensor:
    return _dispatch.empty(tuple(tap.shape), tap, nhwc=_dispatch.is_nhwc(tap))


@_feature_distance.register_fake
def _(
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
    impl: str,
) -> Tensor:
    return a[0].new_empty((a[0].shape[0],), dtype=torch.float32)


@_feature_distance_backward.register_fake
def _(
    gout: Tensor,
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
    need_a: bool,
    need_b: bool,
    impl: str,
) -> list[Tensor]:
    return [torch.empty_like(tap) for tap in (a if need_a else []) + (a if need_b else [])]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, weights, *ctx.settings = inputs
    ctx.taps = len(a)
    ctx.save_for_backward(*a, *b, *weights)


def _autograd(ctx: Any, gout: Tensor) -> tuple[Any, ...]:
    taps = ctx.taps
    a, b, weights = (list(ctx.saved_tensors[i:j]) for i, j in ((0, taps), (taps, 2 * taps), (2 * taps, None)))
    need_a, need_b = (any(needed) for needed in ctx.needs_input_grad[:2])
    *settings, impl = ctx.settings
    grads = torch.ops.guide_fast.feature_distance_backward(
        gout.contiguous(), a, b, weights, *settings, need_a, need_b, impl
    )
    none = [None] * taps
    return grads[:taps] if need_a else none, grads[-taps:] if need_b else none, [None] * len(weights), *[None] * 4


_feature_distance.register_autograd(_autograd, setup_context=_setup)


def _triton_forward(*arguments: Any) -> Tensor:
    from guide_fast.kernels.feature_distance import feature_distance_triton

    return feature_distance_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> None:
    from guide_fast.kernels.feature_distance import feature_distance_triton

    feature_distance_triton.backward(*arguments)


def _native_forward(
    a: list[Tensor], b: list[Tensor], weights: list[Tensor], scales: list[float], normalised: bool, eps: float
) -> Tensor:
    batch = len(a[0])
    blocks = sum(-(-tap.shape[2] * tap.shape[3] // PIXELS) for tap in a)
    partial, out = (_dispatch.empty(shape, a[0], dtype=torch.float32) for shape in ((batch, blocks), (batch,)))
    flat_a, flat_b, nhwc = _flat(a), _flat(b), [int(_dispatch.is_nhwc(tap)) for tap in a]
    torch.ops.guide_fast.native_feature_distance(flat_a, flat_b, weights, partial, out, scales, nhwc, normalised, eps)
    return out


def _native_backward(
    gout: Tensor,
    a: list[Tensor],
    b: list[Tensor],
    weights: list[Tensor],
    ga: list[Tensor],
    gb: list[Tensor],
    scales: list[float],
    normalised: bool,
    eps: float,
) -> None:
    nhwc = [int(_dispatch.is_nhwc(tap)) for tap in a]
    torch.ops.guide_fast.native_feature_distance_backward(
        gout, _flat(a), _flat(b), weights, _flat(ga), _flat(gb), scales, nhwc, normalised, eps
    )


def _flat(taps: list[Tensor]) -> list[Tensor]:
    """[N, C, P] views of NCHW maps, [N, P, C] of NHWC ones."""
    return [tap.permute(0, 2, 3, 1).flatten(1, 2) if _dispatch.is_nhwc(tap) else tap.flatten(2) for tap in taps]


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _native_backward),
}
