"""Triton, where it is installed: whether a kernel can run on a tensor."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from guide_fast.kernels._constant import constant

# architectures in the tables of what is compiled: with products from shared memory, with mma.sync alone
WIDE, NARROW = (90, 100), (80, 120)


@constant
def missing() -> str | None:
    """Why no Triton kernel can run at all, or None."""
    return _missing()


@cache
def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    return None


def interpreted() -> bool:
    """Whether TRITON_INTERPRET=1 runs the kernels on the CPU; it has to be set before triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def refuses(x: Tensor) -> str | None:
    """Why no Triton kernel can run on `x`, or None."""
    if reason := missing():
        return reason
    if not x.is_cuda and not interpreted():
        return f"x is on {x.device}, Triton compiles for a GPU; move x to one"
    return None


def has_wide_products(x: Tensor) -> bool:
    """Whether the GPU of `x` has wgmma or tcgen05: products of 64 rows or more whose operands lie in shared memory."""
    return x.is_cuda and 10 * torch.cuda.get_device_capability(x.device)[0] in WIDE


def allows_tf32(x: Tensor) -> bool:
    """Whether fp32 products may round their inputs to tf32, as `torch.backends.cuda.matmul` says."""
    return x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
