"""fused_adam as a Triton kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from guide_fast.kernels.fused_adam._table import CHUNK, Table

BLOCK = 1024
ELEMENTS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def address(table_ptr, row, tensors, tensor, ELEMENT: tl.constexpr, ALIGNED: tl.constexpr):
    """The pointer that a row of the table has for a tensor."""
    pointer = tl.load(table_ptr + row * tensors + tensor).to(tl.pointer_type(ELEMENT))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def fused_adam_kernel(
    table_ptr,  # [6, tensors]
    chunk_tensor_ptr,  # [chunks]
    chunk_start_ptr,  # [chunks]
    tensors,
    one_minus_beta1,
    beta2,
    one_minus_beta2,
    step_size,
    bias2_rsqrt,
    eps,
    weight_decay,
    GRADIENT: tl.constexpr,
    COPY: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, one chunk of one tensor."""
    tensor = tl.load(chunk_tensor_ptr + tl.program_id(0))
    start = tl.multiple_of(tl.load(chunk_start_ptr + tl.program_id(0)), BLOCK)
    size = tl.load(table_ptr + 5 * tensors + tensor)
    param_ptr = address(table_ptr, 0, tensors, tensor, tl.float32, ALIGNED)
    grad_ptr = address(table_ptr, 1, tensors, tensor, GRADIENT, ALIGNED)
    exp_avg_ptr = address(table_ptr, 2, tensors, tensor, tl.float32, ALIGNED)
    exp_avg_sq_ptr = address(table_ptr, 3, tensors, tensor, tl.float32, ALIGNED)
    copy_ptr = address(table_ptr, 4, tensors, tensor, COPY, ALIGNED)
    for offset in range(0, CHUNK, BLOCK):
        i = start + offset + tl.arange(0, BLOCK)
        mask = i < size
        param = tl.load(param_ptr + i, mask=mask, other=0.0)
        grad = tl.load(grad_ptr + i, mask=mask, other=0.0).to(tl.float32)
        m = tl.load(exp_avg_ptr + i, mask=mask, other=0.0)
        v = tl.load(exp_avg_sq_ptr + i, mask=mask, other=0.0)
        grad += weight_decay * param
        m += one_minus_beta1 * (grad - m)
        v = v * beta2 + one_minus_beta2 * grad * grad
        param -= step_size * (m / (tl.sqrt(v) * bias2_rsqrt + eps))
        tl.store(exp_avg_ptr + i, m, mask=mask)
        tl.store(exp_avg_sq_ptr + i, v, mask=mask)
        tl.store(param_ptr + i, param, mask=mask)
        if COPIES:
            tl.store(copy_ptr + i, param.to(COPY), mask=mask)


def step(table: Table, gradient: torch.dtype, copy: torch.dtype | None, factors: list[float]) -> None:
    """One launch for all tensors of the table."""
    fused_adam_kernel[(len(table.chunk_tensor),)](
        table.rows,
        table.chunk_tensor,
        table.chunk_start,
        table.rows.shape[1],
        *factors,
        GRADIENT=ELEMENTS[gradient],
        COPY=ELEMENTS[copy or torch.float32],
        COPIES=copy is not None,
        ALIGNED=table.aligned,
        CHUNK=CHUNK,
        BLOCK=BLOCK,
    )


_SIGNATURE = {
    "table_ptr": "*i64",
    "chunk_tensor_ptr": "*i32",
    "chunk_start_ptr": "*i64",
    "tensors": "i32",
} | dict.fromkeys(
    ("one_minus_beta1", "beta2", "one_minus_beta2", "step_size", "bias2_rsqrt", "eps", "weight_decay"), "fp32"
)
_SIZES = {"CHUNK": CHUNK, "BLOCK": BLOCK}

# name -> (kernel, signature, constexprs): what bench/compile_report.py compiles; element types are constexprs here
COMPILE = {
    "fp32": (
        fused_adam_kernel,
        _SIGNATURE,
        {"GRADIENT": tl.float32, "COPY": tl.float32, "COPIES": False, "ALIGNED": True} | _SIZES,
    ),
    "fp16_copy": (
        fused_adam_kernel,
        _SIGNATURE,
        {"GRADIENT": tl.float16, "COPY": tl.float16, "COPIES": True, "ALIGNED": True} | _SIZES,
    ),
    "bf16_unaligned": (
        fused_adam_kernel,
        _SIGNATURE,
        {"GRADIENT": tl.bfloat16, "COPY": tl.bfloat16, "COPIES": True, "ALIGNED": False} | _SIZES,
    ),
}
