"""face_crop as a Triton kernel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.face_crop.framing import Axis

BLOCK = 256


@triton.jit
def face_crop_kernel(
    x_ptr,  # [N, 3, in_height, in_width], [N, in_height, in_width, 3] with NHWC
    y_ptr,  # [N, 3, out_height, out_width]
    row_start_ptr,  # [out_height]
    row_weight_ptr,  # [row_taps, out_height]
    column_start_ptr,  # [out_width]
    column_weight_ptr,  # [column_taps, out_width]
    in_height,
    in_width,
    out_height,
    out_width,
    row_taps,
    column_taps,
    source0,
    source1,
    source2,
    scale0,
    scale1,
    scale2,
    offset0,
    offset1,
    offset2,
    NHWC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, BLOCK pixels of one channel of one image."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = tl.program_id(1).to(tl.int64)
    channel = plane % 3
    inside = at < out_height * out_width
    i = at // out_width
    j = at % out_width
    source = tl.where(channel == 0, source0, tl.where(channel == 1, source1, source2))
    scale = tl.where(channel == 0, scale0, tl.where(channel == 1, scale1, scale2))
    offset = tl.where(channel == 0, offset0, tl.where(channel == 1, offset1, offset2))
    pixels = in_height * in_width
    if NHWC:
        x_ptr += plane // 3 * pixels * 3 + source
        step = 3
    else:
        x_ptr += (plane // 3 * 3 + source) * pixels
        step = 1
    row = tl.load(row_start_ptr + i, mask=inside, other=0)
    column = tl.load(column_start_ptr + j, mask=inside, other=0)
    first = row * in_width + column

    # rows of the window, then columns
    total = tl.zeros((BLOCK,), tl.float32)
    for ky in range(row_taps):
        along = tl.zeros((BLOCK,), tl.float32)
        for kx in range(column_taps):
            x = tl.load(x_ptr + (first + ky * in_width + kx) * step, mask=inside, other=0.0).to(tl.float32)
            along += x * tl.load(column_weight_ptr + kx * out_width + j, mask=inside, other=0.0)
        total += along * tl.load(row_weight_ptr + ky * out_height + i, mask=inside, other=0.0)
    y = total * scale + offset
    tl.store(y_ptr + plane * out_height * out_width + at, y.to(y_ptr.dtype.element_ty), mask=inside)


def resample(
    x: Tensor, y: Tensor, rows: Axis, columns: Axis, source: list[int], scale: list[float], offset: list[float]
) -> None:
    """y[n, c] = (rows x[n, source[c]] columns^T) * scale[c] + offset[c]; x dense, y contiguous."""
    n, _, height, width = y.shape
    face_crop_kernel[(triton.cdiv(height * width, BLOCK), 3 * n)](
        x,
        y,
        rows.start,
        rows.weights,
        columns.start,
        columns.weights,
        x.shape[2],
        x.shape[3],
        height,
        width,
        rows.taps,
        columns.taps,
        *source,
        *scale,
        *offset,
        NHWC=_dispatch.is_nhwc(x),
        BLOCK=BLOCK,
    )


_SIGNATURE = (
    {"x_ptr": "*{T}", "y_ptr": "*{T}", "row_start_ptr": "*i32", "row_weight_ptr": "*fp32"}
    | {"column_start_ptr": "*i32", "column_weight_ptr": "*fp32"}
    | dict.fromkeys(("in_height", "in_width", "out_height", "out_width", "row_taps", "column_taps"), "i32")
    | dict.fromkeys(("source0", "source1", "source2"), "i32")
    | dict.fromkeys(("scale0", "scale1", "scale2", "offset0", "offset1", "offset2"), "fp32")
)

# name -> (kernel, signature of pointers by dtype, constexprs): what bench/compile_report.py compiles
COMPILE = {
    "nchw": (face_crop_kernel, _SIGNATURE, {"NHWC": False, "BLOCK": BLOCK}),
    "nhwc": (face_crop_kernel, _SIGNATURE, {"NHWC": True, "BLOCK": BLOCK}),
}
