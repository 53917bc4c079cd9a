"""identity_loss as a Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

KINDS = {"cosine": 0, "l2": 1, "squared_l2": 2}
TILE = 1024  # elements at a time: larger ones spill registers
ROWS = 8  # pairs at a time where one program takes them all


@triton.jit
def lengths(a_ptr, b_ptr, row, inside, width, eps, NORMALISE: tl.constexpr, BLOCK: tl.constexpr):
    """|a|^2, |b|^2 with the factors that scale a and b."""
    aa = tl.zeros(row.shape, tl.float32)
    bb = tl.zeros(row.shape, tl.float32)
    for start in range(0, width, BLOCK):
        i = start + tl.arange(0, BLOCK)
        at = row[:, None] * width + i[None, :]
        mask = inside[:, None] & (i < width)[None, :]
        a = tl.load(a_ptr + at, mask=mask, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at, mask=mask, other=0.0).to(tl.float32)
        aa += tl.sum(a * a, 1)
        bb += tl.sum(b * b, 1)
    if NORMALISE:
        ra = 1.0 / tl.sqrt(tl.maximum(aa, eps * eps))
        rb = 1.0 / tl.sqrt(tl.maximum(bb, eps * eps))
    else:
        ra = aa * 0.0 + 1.0
        rb = bb * 0.0 + 1.0
    return aa, bb, ra, rb


@triton.jit
def identity_loss_kernel(
    a_ptr,  # [N, width]
    b_ptr,  # [N, width]
    loss_ptr,  # [N], [1] with REDUCE
    da_ptr,  # [N, width]
    db_ptr,  # [N, width]
    rows,
    width,
    scale,
    eps,
    KIND: tl.constexpr,
    NORMALISE: tl.constexpr,
    REDUCE: tl.constexpr,
    NEED_A: tl.constexpr,
    NEED_B: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, ROWS pairs; with REDUCE one program takes all pairs, ROWS at a time."""
    total = tl.zeros((ROWS,), tl.float32)
    lost = tl.zeros((ROWS,), tl.float32)  # compensated: the error does not grow with the number of pairs
    last = rows if REDUCE else ROWS
    for first in range(0, last, ROWS):
        row = (tl.program_id(0).to(tl.int64) * ROWS + first + tl.arange(0, ROWS)).to(tl.int64)
        inside = row < rows
        aa, bb, ra, rb = lengths(a_ptr, b_ptr, row, inside, width, eps, NORMALISE, BLOCK)
        q = rb / ra

        # difference u - v = ra (a - q b): exactly 0 where a == b, whatever the compiler fuses
        ee = tl.zeros((ROWS,), tl.float32)
        ue = tl.zeros((ROWS,), tl.float32)
        ve = tl.zeros((ROWS,), tl.float32)
        for start in range(0, width, BLOCK):
            i = start + tl.arange(0, BLOCK)
            at = row[:, None] * width + i[None, :]
            mask = inside[:, None] & (i < width)[None, :]
            a = tl.load(a_ptr + at, mask=mask, other=0.0).to(tl.float32)
            b = tl.load(b_ptr + at, mask=mask, other=0.0).to(tl.float32)
            e = ra[:, None] * (a - q[:, None] * b)
            ee += tl.sum(e * e, 1)
            ue += tl.sum(a * ra[:, None] * e, 1)
            ve += tl.sum(b * rb[:, None] * e, 1)

        # loss and slopes
        if NORMALISE:
            unit_a = aa >= eps * eps
            unit_b = bb >= eps * eps
        else:
            unit_a = aa < 0
            unit_b = bb < 0
        if KIND == 0:
            # half of |u - v|^2 is 1 - cos of unit vectors, without the cancellation at cos near 1
            short_a = tl.where(unit_a, 0.0, 1.0 - aa * ra * ra)
            short_b = tl.where(unit_b, 0.0, 1.0 - bb * rb * rb)
            loss = 0.5 * (ee + short_a + short_b)
            k = ee * 0.0 + 1.0
            held = 1.0
        elif KIND == 1:
            loss = tl.sqrt(ee)
            k = tl.where(ee > 0, 1.0 / tl.sqrt(tl.where(ee > 0, ee, 1.0)), 0.0)
            held = 0.0
        else:
            loss = ee
            k = ee * 0.0 + 2.0
            held = 0.0
        pa = tl.where(unit_a, k * ue, held)
        pb = tl.where(unit_b, -k * ve, held)
        if REDUCE:
            term = tl.where(inside, loss * scale, 0.0) - lost
            longer = total + term
            lost = (longer - total) - term
            total = longer
        else:
            tl.store(loss_ptr + row, loss * scale, mask=inside)

        # gradients
        if NEED_A or NEED_B:
            for start in range(0, width, BLOCK):
                i = start + tl.arange(0, BLOCK)
                at = row[:, None] * width + i[None, :]
                mask = inside[:, None] & (i < width)[None, :]
                a = tl.load(a_ptr + at, mask=mask, other=0.0).to(tl.float32)
                b = tl.load(b_ptr + at, mask=mask, other=0.0).to(tl.float32)
                e = (k * ra)[:, None] * (a - q[:, None] * b)
                if NEED_A:
                    tl.store(da_ptr + at, (scale * ra)[:, None] * (e - (pa * ra)[:, None] * a), mask=mask)
                if NEED_B:
                    tl.store(db_ptr + at, -(scale * rb)[:, None] * (e + (pb * rb)[:, None] * b), mask=mask)
    if REDUCE:
        tl.store(loss_ptr, tl.sum(total, 0))


def forward(
    a: Tensor,
    b: Tensor,
    loss: Tensor,
    da: Tensor | None,
    db: Tensor | None,
    kind: str,
    normalise: bool,
    reduce: bool,
    scale: float,
    eps: float,
) -> None:
    """As the door, into `loss`, `da`, `db`; a and b contiguous."""
    rows, width = a.shape
    at_once = min(ROWS, triton.next_power_of_2(rows)) if reduce else 1
    block = min(TILE // at_once, triton.next_power_of_2(width))
    identity_loss_kernel[(1 if reduce else rows,)](
        a,
        b,
        loss,
        loss if da is None else da,
        loss if db is None else db,
        rows,
        width,
        scale,
        eps,
        KIND=KINDS[kind],
        NORMALISE=normalise,
        REDUCE=reduce,
        NEED_A=da is not None,
        NEED_B=db is not None,
        ROWS=at_once,
        BLOCK=block,
        num_warps=8 if at_once * block >= 1024 else 4,
    )


_SIGNATURE = {"a_ptr": "*{T}", "b_ptr": "*{T}", "loss_ptr": "*fp32", "da_ptr": "*fp32", "db_ptr": "*fp32"} | {
    "rows": "i32",
    "width": "i32",
    "scale": "fp32",
    "eps": "fp32",
}
_BOTH = {"NORMALISE": True, "NEED_A": True, "NEED_B": True}

# name -> (kernel, signature of pointers by dtype, constexprs, options): what bench/compile_report.py compiles
COMPILE = {
    "rows": (
        identity_loss_kernel,
        _SIGNATURE,
        {"KIND": 1, "REDUCE": False, "ROWS": 1, "BLOCK": TILE} | _BOTH,
        {"num_warps": 8},
    ),
    "total": (
        identity_loss_kernel,
        _SIGNATURE,
        {"KIND": 0, "REDUCE": True, "ROWS": ROWS, "BLOCK": TILE // ROWS} | _BOTH,
        {"num_warps": 8},
    ),
}
