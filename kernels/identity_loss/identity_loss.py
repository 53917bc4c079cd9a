"""The public door of identity_loss: checks, custom operators, fakes, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.identity_loss.identity_loss_reference import identity_loss_reference

KINDS = ("cosine", "l2", "squared_l2")
REDUCTIONS = ("none", "mean", "sum")
LEAST_EPS = 1e-15  # its square has to be a normal float32
# Elements from which the native CPU path beats PyTorch, forward with backward: below, the price of calling a custom
# operator is more than all of the arithmetic.
NATIVE_FROM = 1 << 18


def identity_loss(
    a: Tensor,  # [N, E]
    b: Tensor,  # [N, E], the teacher's
    *,
    kind: str = "cosine",
    normalise: bool = True,
    scale: float = 1.0,
    reduction: str = "none",
    eps: float = 1e-8,
    impl: str = "auto",
) -> Tensor:
    """`scale` times 1 - cos ("cosine"), |u - v| ("l2") or |u - v|^2 ("squared_l2") of each pair of embeddings, float32.

    u, v are a, b scaled to unit length (a length below `eps` counts as `eps`), or a, b themselves where `normalise` is
    off. `reduction` gives [N] ("none") or a scalar ("mean", "sum"). The same launch writes the gradient, of b only
    where b asks for one; at u == v that of "l2" is 0. First derivatives only. Raises KernelError on bad input,
    ImplementationUnavailable when `impl` cannot run. Source: GUIDE (arXiv 2405.09879), section 3.
    """
    _dispatch.check_tensor("identity_loss", "a", a, (None, None))
    _dispatch.check_not_empty("identity_loss", "a", a)
    _dispatch.check_tensor("identity_loss", "b", b, tuple(a.shape), like=a)
    if kind not in KINDS:
        raise KernelError(f"kind={kind!r} is not known; choose one of {', '.join(KINDS)}")
    if reduction not in REDUCTIONS:
        raise KernelError(f"reduction={reduction!r} is not known; choose one of {', '.join(REDUCTIONS)}")
    if kind == "cosine" and not normalise:
        raise KernelError("normalise=False has no meaning for kind='cosine'; choose 'l2' or 'squared_l2'")
    if not eps >= LEAST_EPS:
        raise KernelError(f"eps={eps} is below {LEAST_EPS}; its square would vanish in float32")
    if _dispatch.widen_on_cpu(impl, a):
        a, b = a.float(), b.float()
    chosen = _dispatch.choose("identity_loss", impl, a, BACKENDS, slow_cpu=a.numel() < NATIVE_FROM)
    if chosen == "reference":
        return identity_loss_reference(a, b, kind=kind, normalise=normalise, scale=scale, reduction=reduction, eps=eps)
    factor = float(scale) / len(a) if reduction == "mean" else float(scale)
    return torch.ops.guide_fast.identity_loss(
        a.contiguous(), b.contiguous(), kind, normalise, reduction != "none", factor, float(eps), *_wanted(a, b), chosen
    )[0]


def _wanted(*tensors: Tensor) -> tuple[bool, ...]:
    return tuple(torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors)


@torch.library.custom_op("guide_fast::identity_loss", mutates_args=())
def _identity_loss(
    a: Tensor,
    b: Tensor,
    kind: str,
    normalise: bool,
    reduce: bool,
    scale: float,
    eps: float,
    need_a: bool,
    need_b: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, then the gradients of a and b for an upstream of 1, [0] where not needed; all float32."""
    if impl == "triton":
        _dispatch.check_tensor("torch.ops.guide_fast.identity_loss", "a", a, (None, None))
        _dispatch.check_operands("identity_loss", a, {"a": (a, a.shape), "b": (b, a.shape)})
    loss = _dispatch.empty(() if reduce else (len(a),), a, dtype=torch.float32)
    da = _dispatch.empty(tuple(a.shape), a, dtype=torch.float32) if need_a else None
    db = _dispatch.empty(tuple(a.shape), a, dtype=torch.float32) if need_b else None
    _dispatch.backend("identity_loss", impl, a, BACKENDS).forward(
        a, b, loss, da, db, kind, normalise, reduce, scale, eps
    )
    none = [loss.new_empty(0) for absent in (da, db) if absent is None]
    return loss, none.pop() if da is None else da, none.pop() if db is None else db


@_identity_loss.register_fake
def _(
    a: Tensor,
    b: Tensor,
    kind: str,
    normalise: bool,
    reduce: bool,
    scale: float,
    eps: float,
    need_a: bool,
    need_b: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    loss = a.new_empty(() if reduce else (a.shape[0],), dtype=torch.float32)
    da, db = (a.new_empty(a.shape if need else (0,), dtype=torch.float32) for need in (need_a, need_b))
    return loss, da, db


@torch.library.custom_op("guide_fast::identity_loss_backward", mutates_args=())
def _identity_loss_backward(gloss: Tensor, slope: Tensor, like: Tensor) -> Tensor:
    """gloss * slope in the dtype of `like`: [] or [N], [N, E] -> [N, E]."""
    out = _dispatch.empty(tuple(slope.shape), like)
    return torch.mul(slope, gloss if gloss.ndim == 0 else gloss[:, None], out=out)


@_identity_loss_backward.register_fake
def _(gloss: Tensor, slope: Tensor, like: Tensor) -> Tensor:
    return torch.empty_like(slope, dtype=like.dtype)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], *inputs[:2])


def _autograd(ctx: Any, gloss: Tensor | None, *_: Any) -> tuple[Any, ...]:
    grads: list[Tensor | None] = [None, None]
    if gloss is not None:
        saved = ctx.saved_tensors
        for i in (0, 1):
            if ctx.needs_input_grad[i]:
                grads[i] = torch.ops.guide_fast.identity_loss_backward(gloss, saved[i], saved[i + 2])
    return (*grads, *[None] * 8)


_identity_loss.register_autograd(_autograd, setup_context=_setup)


def _triton(*arguments: Any) -> None:
    from guide_fast.kernels.identity_loss import identity_loss_triton

    identity_loss_triton.forward(*arguments)


def _native(*arguments: Any) -> None:
    torch.ops.guide_fast.native_identity_loss(*arguments)


# the backward pass is one multiplication, the same for all
BACKENDS = {
    "triton": Backend(_triton, _identity_loss_backward),
    "cuda": Backend(_native, _identity_loss_backward),
    "cpu": Backend(_native, _identity_loss_backward),
}
