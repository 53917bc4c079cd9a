"""fused_adam as a Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels.fused_adam._table import CHUNK, Table

BLOCK = 1024


@triton.jit
def pointer(address, ELEMENT: tl.constexpr, ALIGNED: tl.constexpr):
    """The pointer to elements at an address."""
    at = address.to(tl.pointer_type(ELEMENT))
    return tl.multiple_of(at, 16) if ALIGNED else at


@triton.jit
def load_as_float32(address, i, mask, code, ALIGNED: tl.constexpr):
    """Elements i of the dtype that `code` says; a constexpr code leaves one load."""
    if code == 0:
        value = tl.load(pointer(address, tl.float32, ALIGNED) + i, mask=mask, other=0.0)
    elif code == 1:
        value = tl.load(pointer(address, tl.float16, ALIGNED) + i, mask=mask, other=0.0).to(tl.float32)
    else:
        value = tl.load(pointer(address, tl.bfloat16, ALIGNED) + i, mask=mask, other=0.0).to(tl.float32)
    return value


@triton.jit
def store_as(address, i, mask, value, code, ALIGNED: tl.constexpr):
    """Elements i in the dtype that `code` says; code -1 stores nothing."""
    if code == 0:
        tl.store(pointer(address, tl.float32, ALIGNED) + i, value, mask=mask)
    elif code == 1:
        tl.store(pointer(address, tl.float16, ALIGNED) + i, value.to(tl.float16), mask=mask)
    elif code == 2:
        tl.store(pointer(address, tl.bfloat16, ALIGNED) + i, value.to(tl.bfloat16), mask=mask)


@triton.jit
def fused_adam_kernel(
    table_ptr,  # [8, tensors]
    chunk_tensor_ptr,  # [chunks]
    chunk_start_ptr,  # [chunks]
    factors_ptr,  # [settings, 7]; not read with SHARED
    tensors,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    step_size,
    bias2_rsqrt,
    eps,
    weight_decay,
    GRADIENT: tl.constexpr,  # code of the gradients' dtype; MIXED takes it from the table
    COPY: tl.constexpr,  # of the copies, -1 for none
    MIXED: tl.constexpr,
    SHARED: tl.constexpr,  # one setting for all tensors, in the arguments
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, one chunk of one tensor."""
    tensor = tl.load(chunk_tensor_ptr + tl.program_id(0))
    start = tl.multiple_of(tl.load(chunk_start_ptr + tl.program_id(0)), BLOCK)
    row = table_ptr + tensor
    param_ptr = pointer(tl.load(row), tl.float32, ALIGNED)
    grad_at = tl.load(row + tensors)
    exp_avg_ptr = pointer(tl.load(row + 2 * tensors), tl.float32, ALIGNED)
    exp_avg_sq_ptr = pointer(tl.load(row + 3 * tensors), tl.float32, ALIGNED)
    copy_at = tl.load(row + 4 * tensors)
    size = tl.load(row + 5 * tensors)
    if MIXED:
        kind = tl.load(row + 6 * tensors)
    if not SHARED:
        factors = factors_ptr + 7 * tl.load(row + 7 * tensors)
        one_minus_beta1 = tl.load(factors)
        beta2 = tl.load(factors + 1)
        one_minus_beta2 = tl.load(factors + 2)
        step_size = tl.load(factors + 3)
        bias2_rsqrt = tl.load(factors + 4)
        eps = tl.load(factors + 5)
        weight_decay = tl.load(factors + 6)
    for offset in range(0, CHUNK, BLOCK):
        i = start + offset + tl.arange(0, BLOCK)
        mask = i < size
        param = tl.load(param_ptr + i, mask=mask, other=0.0)
        if MIXED:
            grad = load_as_float32(grad_at, i, mask, kind % 4, ALIGNED)
        else:
            grad = load_as_float32(grad_at, i, mask, GRADIENT, ALIGNED)
        m = tl.load(exp_avg_ptr + i, mask=mask, other=0.0)
        v = tl.load(exp_avg_sq_ptr + i, mask=mask, other=0.0)
        grad += weight_decay * param
        m += one_minus_beta1 * (grad - m)
        v = v * beta2 + one_minus_beta2 * grad * grad
        param -= step_size * (m / (tl.sqrt(v) * bias2_rsqrt + eps))
        tl.store(exp_avg_ptr + i, m, mask=mask)
        tl.store(exp_avg_sq_ptr + i, v, mask=mask)
        tl.store(param_ptr + i, param, mask=mask)
        if MIXED:
            store_as(copy_at, i, mask, param, kind // 4 - 1, ALIGNED)
        else:
            store_as(copy_at, i, mask, param, COPY, ALIGNED)


def step(table: Table, factors: list[float], factor_table: Tensor | None) -> None:
    """One launch for all tensors of the table; `factors` hold for all, unless `factor_table` [settings, 7] is there."""
    mixed = table.kind < 0
    fused_adam_kernel[(len(table.chunk_tensor),)](
        table.rows,
        table.chunk_tensor,
        table.chunk_start,
        table.rows if factor_table is None else factor_table,
        table.rows.shape[1],
        *(factors if factor_table is None else [0.0] * 7),
        GRADIENT=0 if mixed else table.kind % 4,
        COPY=-1 if mixed else table.kind // 4 - 1,
        MIXED=mixed,
        SHARED=factor_table is None,
        ALIGNED=table.aligned,
        CHUNK=CHUNK,
        BLOCK=BLOCK,
    )


_SIGNATURE = {
    "table_ptr": "*i64",
    "chunk_tensor_ptr": "*i32",
    "chunk_start_ptr": "*i64",
    "factors_ptr": "*fp32",
    "tensors": "i32",
} | dict.fromkeys(
    ("one_minus_beta1", "beta2", "one_minus_beta2", "step_size", "bias2_rsqrt", "eps", "weight_decay"), "fp32"
)
_FIXED = {"CHUNK": CHUNK, "BLOCK": BLOCK, "ALIGNED": True, "SHARED": True, "MIXED": False}

# name -> (kernel, signature, constexprs): what bench/compile_report.py compiles; element types are constexprs here
COMPILE = {
    "fp32": (fused_adam_kernel, _SIGNATURE, _FIXED | {"GRADIENT": 0, "COPY": -1}),
    "fp16_copy": (fused_adam_kernel, _SIGNATURE, _FIXED | {"GRADIENT": 1, "COPY": 1}),
    "bf16_unaligned": (fused_adam_kernel, _SIGNATURE, _FIXED | {"GRADIENT": 2, "COPY": 2, "ALIGNED": False}),
    "mixed": (fused_adam_kernel, _SIGNATURE, _FIXED | {"GRADIENT": 0, "COPY": -1, "MIXED": True, "SHARED": False}),
}
