"""The public door of fused_adam: checks, custom operator, fake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import ImplementationUnavailable, KernelError
from guide_fast.kernels.fused_adam._table import CHUNK, Table, table_of
from guide_fast.kernels.fused_adam.fused_adam_reference import fused_adam_reference

GRADIENTS = (torch.float32, *_dispatch.HALVES)
FACTORS = ("one_minus_beta1", "beta2", "one_minus_beta2", "step_size", "bias2_rsqrt", "eps", "weight_decay")


Number = float | Sequence[float]


@torch.no_grad()
def fused_adam(
    params: Sequence[Tensor],  # float32 (float64: the reference alone)
    grads: Sequence[Tensor | None],  # None: that tensor is left alone
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int | Sequence[int],
    lr: Number,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 0.0,
    working_copies: Sequence[Tensor | None] | None = None,
    impl: str = "auto",
) -> None:
    """Step number `step` (from 1) of Adam, in place, for all tensors in one launch; the numbers of torch.optim.Adam.

    Each of `step`, `lr`, ... is one number, or one for each tensor. Gradients may be in half precision;
    `working_copies` receive the new parameters in their own dtype. Moments and copies lie in memory as their parameter
    does; a gradient that does not costs a copy. With "auto", float64 tensors, or those with strides that no kernel
    reads, take the reference beside the launch. Raises KernelError on bad input, ImplementationUnavailable when `impl`
    cannot run. Source: Adam (arXiv 1412.6980), algorithm 1.
    """
    copies = [None] * len(params) if working_copies is None else list(working_copies)
    for name, group in (("grads", grads), ("exp_avgs", exp_avgs), ("exp_avg_sqs", exp_avg_sqs), ("copies", copies)):
        if len(group) != len(params):
            raise KernelError(f"{name} of fused_adam has {len(group)} entries for {len(params)} params; give as many")
    settings = _each(len(params), step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    factors = {setting: _factors(*setting) for setting in dict.fromkeys(settings)}
    parts: dict[tuple[torch.dtype, bool], list[int]] = {}
    for i, (param, grad, m, v, copy) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, copies, strict=True)):
        if grad is None or param.numel() == 0:
            continue
        _check(i, param, grad, m, v, copy, params[0])
        parts.setdefault((param.dtype, _layout(param) is None), []).append(i)
    for indices in parts.values():
        pick = [[group[i] for i in indices] for group in (params, grads, exp_avgs, exp_avg_sqs, copies)]
        _run(pick, [factors[settings[i]] for i in indices], impl)


def _each(count: int, **numbers: Number) -> list[tuple[float, ...]]:
    """The settings of each tensor."""
    columns = []
    for name, value in numbers.items():
        values = list(value) if isinstance(value, Sequence) else [value] * max(count, 1)
        if len(values) != count and isinstance(value, Sequence):
            raise KernelError(f"{name} of fused_adam has {len(values)} entries for {count} params; give as many")
        columns.append(values)
    settings = list(zip(*columns, strict=True))
    for setting in dict.fromkeys(settings):
        _check_settings(*setting)
    return settings


def _factors(step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> tuple[float, ...]:
    """What a kernel multiplies with, in the order of FACTORS."""
    bias1, bias2 = 1 - beta1**step, 1 - beta2**step
    return (1 - beta1, beta2, 1 - beta2, lr / bias1, 1 / math.sqrt(bias2), eps, weight_decay)


def _run(tensors: list[list[Any]], factors: list[tuple[float, ...]], impl: str) -> None:
    params, grads, exp_avgs, exp_avg_sqs, copies = tensors
    chosen = _dispatch.choose("fused_adam", impl, params[0], BACKENDS)
    if _layout(params[0]) is None and chosen != "reference":
        if impl != "auto":
            raise ImplementationUnavailable(
                f"fused_adam cannot run with impl={impl!r}: a tensor of shape {tuple(params[0].shape)} has strides "
                f"{params[0].stride()}; make it contiguous, or use 'auto'"
            )
        chosen = "reference"
    if chosen == "reference":
        for i, row in enumerate(factors):
            copy = [] if copies[i] is None else [copies[i]]
            named = dict(zip(FACTORS, row, strict=True))
            fused_adam_reference([params[i]], [grads[i]], [exp_avgs[i]], [exp_avg_sqs[i]], copy, **named)
        return
    grads = [_laid_out_as(p, g) for p, g in zip(params, grads, strict=True)]
    copied = [i for i, copy in enumerate(copies) if copy is not None]
    place = {row: i for i, row in enumerate(dict.fromkeys(factors))}
    torch.ops.guide_fast.fused_adam(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [copies[i] for i in copied],
        copied,
        [place[row] for row in factors],
        [number for row in place for number in row],
        chosen,
    )


def _check_settings(step: float, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
    if not step >= 1:
        raise KernelError(f"step={step} is below 1; the first step is 1")
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise KernelError(f"{name}={beta} must lie in [0, 1)")
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if not value >= 0:
            raise KernelError(f"{name}={value} is negative")


def _check(i: int, param: Tensor, grad: Tensor, m: Tensor, v: Tensor, copy: Tensor | None, first: Tensor) -> None:
    if param.dtype not in (torch.float32, torch.float64):
        raise KernelError(
            f"params[{i}] of fused_adam is {_dispatch.name_of(param.dtype)}; give the float32 master weights, with "
            "the half-precision ones as working_copies"
        )
    if param.device != first.device:
        raise KernelError(f"params[{i}] of fused_adam is on {param.device} but params[0] on {first.device}")
    if grad.layout != torch.strided:
        raise KernelError(f"grads[{i}] of fused_adam is {grad.layout}; give a dense gradient")
    for name, tensor in (("grads", grad), ("exp_avgs", m), ("exp_avg_sqs", v), ("working_copies", copy)):
        if tensor is None:
            continue
        if tensor.shape != param.shape or tensor.device != param.device:
            raise KernelError(
                f"{name}[{i}] of fused_adam is {tuple(tensor.shape)} on {tensor.device}, params[{i}] "
                f"{tuple(param.shape)} on {param.device}"
            )
        if name.startswith("exp") and tensor.dtype != param.dtype:
            raise KernelError(f"{name}[{i}] of fused_adam is {_dispatch.name_of(tensor.dtype)}; keep it as params[{i}]")
        if tensor.dtype not in _dispatch.FLOATS or (tensor.dtype == torch.float64 and param.dtype == torch.float32):
            raise KernelError(f"{name}[{i}] of fused_adam is {_dispatch.name_of(tensor.dtype)}; give at most float32")
        if name != "grads" and _layout(param) is not None and _layout(tensor) != _layout(param):
            raise KernelError(
                f"{name}[{i}] of fused_adam has strides {tensor.stride()}, params[{i}] {param.stride()}; "
                "lay it out alike"
            )


def _check_raw(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    copied: list[int],
    settings: list[int],
    factors: list[float],
) -> None:
    """The kernels get addresses: behind each as many dense elements as the parameter has."""
    op = "torch.ops.guide_fast.fused_adam"
    rows, rest = divmod(len(factors), len(FACTORS))
    if not params or rest or len(settings) != len(params) or not all(0 <= i < rows for i in settings):
        raise KernelError(
            f"{op} has {len(params)} params, settings {settings}, {len(factors)} factors; give at least one param, "
            f"the place of its setting, {len(FACTORS)} factors a setting"
        )
    if len(copied) != len(copies) or not all(0 <= i < len(params) for i in copied):
        raise KernelError(
            f"{op} has {len(copies)} copies of params {copied}; give the place of each, below {len(params)}"
        )
    device = params[0].device
    groups = {"params": params, "grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs, "copies": copies}
    for name, group in groups.items():
        sizes = [params[i].numel() for i in (copied if name == "copies" else range(len(params)))]
        if [t.numel() for t in group] != sizes:
            raise KernelError(
                f"{name} of {op} have {[t.numel() for t in group]} elements, params {sizes}; give as many"
            )
        known = GRADIENTS if name in ("grads", "copies") else (torch.float32,)
        for i, t in enumerate(group):
            if t.dtype not in known or t.device != device or _layout(t) is None:
                raise KernelError(
                    f"{name}[{i}] of {op} is {_dispatch.name_of(t.dtype)} on {t.device} with strides {t.stride()}; "
                    f"give {' or '.join(map(_dispatch.name_of, known))} on {device}, dense"
                )


def _layout(t: Tensor) -> torch.memory_format | None:
    if t.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) else None


def _laid_out_as(param: Tensor, grad: Tensor) -> Tensor:
    layout = _layout(param)
    return grad if _layout(grad) == layout or layout is None else grad.contiguous(memory_format=layout)


@torch.library.custom_op("guide_fast::fused_adam", mutates_args=("params", "exp_avgs", "exp_avg_sqs", "copies"))
def _fused_adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    copied: list[int],
    settings: list[int],
    factors: list[float],
    impl: str,
) -> None:
    """One launch: `copies` are of params at `copied`, `factors` 7 numbers a setting, `settings` an index a tensor."""
    _check_raw(params, grads, exp_avgs, exp_avg_sqs, copies, copied, settings, factors)
    _dispatch.backend("fused_adam", impl, params[0], BACKENDS).forward(
        params, grads, exp_avgs, exp_avg_sqs, copies, copied, settings, factors
    )


@_fused_adam.register_fake
def _(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    copied: list[int],
    settings: list[int],
    factors: list[float],
    impl: str,
) -> None:
    return None


def _triton(*arguments: Any) -> None:
    from guide_fast.kernels.fused_adam import fused_adam_triton

    table, factors, factor_table = _prepared(*arguments)
    fused_adam_triton.step(table, factors, factor_table)


def _native(*arguments: Any) -> None:
    table, factors, factor_table = _prepared(*arguments)
    torch.ops.guide_fast.native_fused_adam(
        table.rows, table.chunk_tensor, table.chunk_start, CHUNK, factor_table, factors
    )


def _prepared(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    copied: list[int],
    settings: list[int],
    factors: list[float],
) -> tuple[Table, list[float], Tensor | None]:
    """The table, the factors of all tensors, or the [settings, 7] on the device where they differ."""
    table = table_of(params, grads, exp_avgs, exp_avg_sqs, dict(zip(copied, copies, strict=True)), settings)
    if len(factors) == len(FACTORS):
        return table, factors, None
    on_host = torch.tensor(factors, dtype=torch.float32).view(-1, len(FACTORS))
    return table, factors, on_host.to(params[0].device, non_blocking=True)


def _no_backward(*_: Any) -> None:
    raise KernelError("fused_adam changes tensors in place; it has no gradient")


BACKENDS = {
    "triton": Backend(_triton, _no_backward),
    "cuda": Backend(_native, _no_backward),
    "cpu": Backend(_native, _no_backward),
}
