"""upfirdn2d as Triton kernels, one for each layout."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch

TILE = 1024  # outputs of one program

# Output o reads the up-sampled line at u + k, u = o * DOWN - pad. Only every UP-th k meets a pixel that is not an
# inserted zero: ceil(K / UP) taps at distance UP from the first.


@triton.jit
def first_tap(u, UP: tl.constexpr):
    """The smallest k >= 0 at which u + k is a multiple of UP, whichever sign `%` gives."""
    return (UP - u % UP) % UP


@triton.jit
def upfirdn2d_nchw_kernel(
    x_ptr,  # [planes, in_h, in_w]
    f_ptr,  # [KH, KW] fp32
    y_ptr,  # [planes, out_h, out_w]
    in_h,
    in_w,
    out_h,
    out_w,
    left,
    top,
    row_tiles,
    column_tiles,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program, COLUMNS columns by ROWS rows of one phase (every UP_Y-th row) of a plane."""
    pid = tl.program_id(0)
    phase = pid % UP_Y
    column_tile = pid // UP_Y % column_tiles
    row_tile = pid // (UP_Y * column_tiles) % row_tiles
    plane = (pid // (UP_Y * column_tiles * row_tiles)).to(tl.int64)
    oy = (row_tile * ROWS + tl.arange(0, ROWS)) * UP_Y + phase
    ox = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    # the rows of a phase share their taps; columns do not, their taps are a gather that all rows use
    ky = first_tap(phase * DOWN_Y - top, UP_Y)
    kx = first_tap(ox * DOWN_X - left, UP_X)
    iy = (oy * DOWN_Y - top + ky) // UP_Y
    ix = (ox * DOWN_X - left + kx) // UP_X
    x_ptr += plane * in_h * in_w
    y_ptr += plane * out_h * out_w
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for i in range((KH + UP_Y - 1) // UP_Y):
        row = iy + i
        inside_y = (row >= 0) & (row < in_h) & (oy < out_h)
        known = tl.where(ky + i * UP_Y < KH, KW, 0)
        for j in tl.static_range((KW + UP_X - 1) // UP_X):
            column, tap = ix + j, kx + j * UP_X
            f = tl.load(f_ptr + (ky + i * UP_Y) * KW + tap, mask=tap < known, other=0.0)
            inside = inside_y[:, None] & ((column >= 0) & (column < in_w) & (ox < out_w))[None, :]
            at = row.to(tl.int64)[:, None] * in_w + column[None, :]
            sums += tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) * f[None, :]
    at = oy.to(tl.int64)[:, None] * out_w + ox[None, :]
    tl.store(y_ptr + at, sums.to(y_ptr.dtype.element_ty), mask=(oy < out_h)[:, None] & (ox < out_w)[None, :])


@triton.jit
def upfirdn2d_nhwc_kernel(
    x_ptr,  # [N, in_h, in_w, channels]
    f_ptr,  # [KH, KW] fp32
    y_ptr,  # [N, out_h, out_w, channels]
    channels,
    in_h,
    in_w,
    out_h,
    out_w,
    left,
    top,
    channel_tiles,
    column_tiles,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program, COLUMNS pixels of a row by CHANNELS channels."""
    pid = tl.program_id(0)
    c = pid % channel_tiles * CHANNELS + tl.arange(0, CHANNELS)
    ox = pid // channel_tiles % column_tiles * COLUMNS + tl.arange(0, COLUMNS)
    row = pid // (channel_tiles * column_tiles)  # of all images together
    oy = row % out_h
    image = (row // out_h).to(tl.int64)
    ky = first_tap(oy * DOWN_Y - top, UP_Y)
    kx = first_tap(ox * DOWN_X - left, UP_X)
    iy = (oy * DOWN_Y - top + ky) // UP_Y
    ix = (ox * DOWN_X - left + kx) // UP_X
    sums = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for i in range((KH + UP_Y - 1) // UP_Y):
        line = (image * in_h + iy + i) * in_w
        width = tl.where((iy + i >= 0) & (iy + i < in_h), in_w, 0)
        known = tl.where(ky + i * UP_Y < KH, KW, 0)
        for j in tl.static_range((KW + UP_X - 1) // UP_X):
            column, tap = ix + j, kx + j * UP_X
            f = tl.load(f_ptr + (ky + i * UP_Y) * KW + tap, mask=tap < known, other=0.0)
            inside = (column >= 0) & (column < width) & (ox < out_w)
            at = (line + column)[:, None] * channels + c[None, :]
            x = tl.load(x_ptr + at, mask=inside[:, None] & (c < channels)[None, :], other=0.0)
            sums += x.to(tl.float32) * f[:, None]
    at = (row.to(tl.int64) * out_w + ox)[:, None] * channels + c[None, :]
    tl.store(y_ptr + at, sums.to(y_ptr.dtype.element_ty), mask=(ox < out_w)[:, None] & (c < channels)[None, :])


def forward(
    x: Tensor,  # [N, C, H, W], NCHW or NHWC
    f: Tensor,  # [kh, kw] fp32, as correlation
    out_h: int,
    out_w: int,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    left: int,
    top: int,
) -> Tensor:
    """[N, C, out_h, out_w], laid out as x."""
    n, c, h, w = x.shape
    y = _dispatch.empty((n, c, out_h, out_w), x, nhwc=_dispatch.is_nhwc(x))
    factors = {"UP_X": up_x, "UP_Y": up_y, "DOWN_X": down_x, "DOWN_Y": down_y, "KH": f.shape[0], "KW": f.shape[1]}
    f = f.contiguous()
    if _dispatch.is_nhwc(x):
        channels = min(triton.next_power_of_2(c), 64)
        columns = min(triton.next_power_of_2(out_w), TILE // channels)
        tiles = triton.cdiv(c, channels), triton.cdiv(out_w, columns)
        grid = (n * out_h * tiles[0] * tiles[1],)
        shape = {"COLUMNS": columns, "CHANNELS": channels}
        upfirdn2d_nhwc_kernel[grid](x, f, y, c, h, w, out_h, out_w, left, top, *tiles, **factors, **shape)
    else:
        phase_h = triton.cdiv(out_h, up_y)
        columns = min(triton.next_power_of_2(out_w), 128)
        rows = min(triton.next_power_of_2(phase_h), TILE // columns)
        tiles = triton.cdiv(phase_h, rows), triton.cdiv(out_w, columns)
        grid = (n * c * up_y * tiles[0] * tiles[1],)
        shape = {"ROWS": rows, "COLUMNS": columns}
        upfirdn2d_nchw_kernel[grid](x, f, y, h, w, out_h, out_w, left, top, *tiles, **factors, **shape)
    return y


_POINTERS = {"x_ptr": "*{T}", "f_ptr": "*fp32", "y_ptr": "*{T}"}
_SIZES = dict.fromkeys(("in_h", "in_w", "out_h", "out_w", "left", "top"), "i32")


def _factors(up: int, down: int) -> dict[str, int]:
    return {"UP_X": up, "UP_Y": up, "DOWN_X": down, "DOWN_Y": down, "KH": 4, "KW": 4}


COMPILE = {
    f"{layout}_up{up}_down{down}": (kernel, _POINTERS | sizes | _SIZES | tiles, _factors(up, down) | shape)
    for up, down in ((1, 1), (2, 1), (1, 2))
    for layout, kernel, sizes, tiles, shape in (
        (
            "nchw",
            upfirdn2d_nchw_kernel,
            {},
            {"row_tiles": "i32", "column_tiles": "i32"},
            {"ROWS": 8, "COLUMNS": 128},
        ),
        (
            "nhwc",
            upfirdn2d_nhwc_kernel,
            {"channels": "i32"},
            {"channel_tiles": "i32", "column_tiles": "i32"},
            {"COLUMNS": 16, "CHANNELS": 64},
        ),
    )
}
