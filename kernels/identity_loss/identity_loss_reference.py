"""identity_loss in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def identity_loss_reference(
    a: Tensor,  # [N, E]
    b: Tensor,  # [N, E]
    *,
    kind: str,
    normalise: bool,
    scale: float,
    reduction: str,
    eps: float,
) -> Tensor:
    """Loss [N] or a scalar, differentiable; float32 for half precision, else in a's dtype."""
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    if normalise:
        a, b = F.normalize(a, dim=1, eps=eps), F.normalize(b, dim=1, eps=eps)
    if kind == "cosine":
        loss = 1 - (a * b).sum(dim=1)
    elif kind == "squared_l2":
        loss = (a - b).square().sum(dim=1)
    else:
        loss = torch.linalg.vector_norm(a - b, dim=1)  # its gradient at a == b is 0
    loss = loss * scale
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
