"""fused_adam in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def fused_adam_reference(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    copies: Sequence[Tensor],  # as many as params, or none
    *,
    one_minus_beta1: float,
    beta2: float,
    one_minus_beta2: float,
    step_size: float,
    bias2_rsqrt: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step of each tensor in place, in torch.optim.Adam's order of operations."""
    for i, (p, grad, m, v) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, strict=True)):
        grad = grad.to(p.dtype) + weight_decay * p
        m.copy_(m + one_minus_beta1 * (grad - m))
        v.copy_(v * beta2 + one_minus_beta2 * grad * grad)
        p.copy_(p - step_size * (m / (v.sqrt() * bias2_rsqrt + eps)))
        if copies:
            copies[i].copy_(p)
