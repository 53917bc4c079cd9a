"""modulated_conv2d by Triton kernels: launches, tile sizes, what bench/compile_report compiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from guide_fast.kernels import _dispatch, _triton
from guide_fast.kernels.modulated_conv2d import _epilogue_triton, _gemm_triton
from guide_fast.kernels.modulated_conv2d._compile_triton import COMPILE
from guide_fast.kernels.modulated_conv2d._operator import Inputs, Pieces, Settings, demodulate
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import fir_padding

__all__ = ["COMPILE", "backward", "forward"]

FULL_GRID = 128  # programs that fill a large GPU; smaller tiles below it
MOST_SPLITS = 64  # of the pixels of a weight gradient


class Tile(NamedTuple):
    """Sizes of one program's share: BM x BN outputs, BK of the inner sum at a time."""

    bm: int
    bn: int
    bk: int
    warps: int
    stages: int


def tile_of(images: int, rows: int, columns: int, depth: int, x: Tensor) -> Tile:
    """The largest tile that does not waste half of itself and leaves a grid that fills the device."""
    half = x.dtype in _dispatch.HALVES
    bm = 128 if half or _triton.allows_tf32(x) else 64
    bn = max(16, min(128 if half else 64 if _triton.allows_tf32(x) else 32, triton.next_power_of_2(columns)))
    bm = max(16 if _triton.interpreted() else 64, min(bm, triton.next_power_of_2(rows)))
    while bn > 32 and images * triton.cdiv(rows, bm) * triton.cdiv(columns, bn) < FULL_GRID:
        bn //= 2
    if bm > 64 and images * triton.cdiv(rows, bm) * triton.cdiv(columns, bn) < FULL_GRID:
        bm //= 2
    # without wgmma both operands pass through registers: less of the inner sum at a time, more warps, or it spills
    older = x.is_cuda and torch.cuda.get_device_capability(x.device) < (9, 0)
    bk = (32 if older else 64) if half else 32 if _triton.allows_tf32(x) else 16
    bk = max(16, min(bk, triton.next_power_of_2(depth)))
    return Tile(bm, bn, bk, 8 if bm * bn > 64 * (127 if older else 128) else 4, 4 if older and half else 3)


def forward(inputs: Inputs, next_style: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """y in NHWC, the demodulation."""
    demod = demodulate(inputs, settings)
    y = _dispatch.empty(inputs.output_shape(settings.up), inputs.x, nhwc=True)
    if settings.up == 1:
        convolve(inputs, settings, y, demod=demod, next_style=next_style)
        return y, demod
    z = _dispatch.empty(inputs.transposed_shape(), inputs.x, nhwc=True)
    convolve(inputs, settings, z)
    fir(z, y, inputs, settings, demod, next_style)
    return y, demod


def backward(gy: Tensor, y: Tensor, demod: Tensor, inputs: Inputs, settings: Settings, needs: Sequence[bool]) -> Pieces:
    """The gradients that `needs` asks for (x, weight, style, noise, bias), all sums in a fixed order."""
    pieces = Pieces()
    g = epilogue_backward(gy, y, demod, inputs, settings, needs, pieces)
    if g is None:
        return pieces
    if settings.up == 2:
        g = fir_adjoint(g, inputs)
    style_through_x = needs[2] and not settings.premodulated
    if needs[0] or style_through_x:
        input_gradient(g, inputs, settings, needs[0], style_through_x, pieces)
    if needs[1]:
        pieces.gweight = weight_gradient(g, inputs, settings)
    return pieces


def convolve(
    inputs: Inputs,
    settings: Settings,
    y: Tensor,  # the output, or for up = 2 the transposed convolution
    demod: Tensor | None = None,
    next_style: Tensor | None = None,
) -> None:
    """conv(s * x, W) with the epilogue of up = 1, or the four phases of the transposed convolution without one."""
    x, up = inputs.x, settings.up
    n, depth, h, w = x.shape
    _, width, hy, wy = y.shape
    kernel = inputs.weight.shape[2]
    weight = packed(inputs.weight)
    demodulated = demod is not None and settings.demodulate
    noise, bias = (inputs.noise, inputs.bias) if up == 1 else (None, None)
    phases = [(a, b) for a in range(up) for b in range(up) if up == 1 or (a < kernel and b < kernel)]
    if len(phases) < up * up:
        y.zero_()  # a 1 x 1 kernel of stride 2 reaches one phase only
    for phase_y, phase_x in phases:
        rows_y, rows_x = (h, w) if up == 1 else ((hy - phase_y + 1) // 2, (wy - phase_x + 1) // 2)
        tile = tile_of(n, rows_y * rows_x, width, depth, x)
        grid = (n * triton.cdiv(rows_y * rows_x, tile.bm), triton.cdiv(width, tile.bn))
        _gemm_triton.convolution_kernel[grid](
            x,
            weight,
            inputs.style,
            demod if demodulated else x,
            x if noise is None else noise,
            x if bias is None else bias,
            x if next_style is None else next_style,
            y,
            h,
            w,
            hy,
            wy,
            rows_y,
            rows_x,
            depth,
            width,
            weight.stride(0),
            weight.stride(2),
            weight.stride(1),
            noise_stride(noise),
            -(kernel // 2) if up == 1 else 0,
            phase_y,
            phase_x,
            settings.slope,
            settings.gain,
            settings.clamp,
            KERNEL=kernel,
            TAPS_Y=kernel if up == 1 else (kernel - phase_y + 1) // 2,
            TAPS_X=kernel if up == 1 else (kernel - phase_x + 1) // 2,
            UP=up,
            MODULATE=not settings.premodulated,
            DEMOD=demodulated,
            NOISE=noise is not None,
            BIAS=bias is not None,
            NEXT=next_style is not None,
            LRELU=settings.lrelu,
            CLAMP=settings.clamp >= 0,
            **shape_of(tile, x),
        )


def fir(
    z: Tensor, y: Tensor, inputs: Inputs, settings: Settings, demod: Tensor | None, next_style: Tensor | None
) -> None:
    """The FIR of up = 2, then the epilogue."""
    n, channels, hy, wy = y.shape
    bp, bc = block_of(channels, 16)
    grid = (n * triton.cdiv(triton.cdiv(hy, 2) * triton.cdiv(wy, 2), bp), triton.cdiv(channels, bc))
    _epilogue_triton.fir_kernel[grid](
        z,
        *epilogue_inputs(z, inputs, settings, demod, next_style),
        y,
        *z.shape[2:],
        hy,
        wy,
        channels,
        noise_stride(inputs.noise),
        settings.slope,
        settings.gain,
        settings.clamp,
        PADDING=fir_padding(inputs.weight.shape[2]),
        **epilogue_flags(inputs, settings, demod, next_style),
        BP=bp,
        BC=bc,
    )


def fir_adjoint(g: Tensor, inputs: Inputs) -> Tensor:
    """From the gradient of the FIR's output to that of its input; the FIR is symmetric, so it is the FIR again."""
    gz = _dispatch.empty(inputs.transposed_shape(), inputs.x, nhwc=True)
    n, channels, hz, wz = gz.shape
    bp, bc = block_of(channels, 16)
    grid = (n * triton.cdiv(triton.cdiv(hz, 2) * triton.cdiv(wz, 2), bp), triton.cdiv(channels, bc))
    off = dict.fromkeys(("DEMOD", "NOISE", "BIAS", "NEXT", "LRELU", "CLAMP"), False)
    padding = 3 - fir_padding(inputs.weight.shape[2])
    settings = (0, 1.0, 1.0, 1.0)  # no noise, slope, gain, clamp
    _epilogue_triton.fir_kernel[grid](
        g, g, g, g, g, gz, *g.shape[2:], hz, wz, channels, *settings, PADDING=padding, **off, BP=bp, BC=bc
    )
    return gz


def epilogue(
    z: Tensor, y: Tensor, inputs: Inputs, settings: Settings, demod: Tensor, next_style: Tensor | None
) -> None:
    """The epilogue alone, behind a convolution that somebody else computed."""
    n, channels, h, w = y.shape
    bp, bc = block_of(channels, 64)
    _epilogue_triton.epilogue_kernel[(n * triton.cdiv(h * w, bp), triton.cdiv(channels, bc))](
        z,
        *epilogue_inputs(z, inputs, settings, demod, next_style),
        y,
        h * w,
        channels,
        noise_stride(inputs.noise),
        settings.slope,
        settings.gain,
        settings.clamp,
        **epilogue_flags(inputs, settings, demod, next_style),
        BP=bp,
        BC=bc,
    )


def epilogue_backward(
    gy: Tensor,
    y: Tensor,
    demod: Tensor,
    inputs: Inputs,
    settings: Settings,
    needs: Sequence[bool],
    pieces: Pieces,
) -> Tensor | None:
    """d * g in NHWC (None when nobody needs it); fills the bias, noise, demodulation parts of `pieces`."""
    needs_x, needs_weight, needs_style, needs_noise, needs_bias = needs
    n, channels, h, w = y.shape
    bp, bc = block_of(channels, 64)
    tiles, blocks = triton.cdiv(h * w, bp), triton.cdiv(channels, bc)
    store = needs_x or needs_weight or (needs_style and not settings.premodulated)
    needs_demod = settings.demodulate and (needs_weight or needs_style)
    g = _dispatch.empty(tuple(y.shape), y, nhwc=True) if store else None

    def partial(wanted: bool, *shape: int) -> Tensor:
        return _dispatch.empty(shape if wanted else (0,), y, dtype=torch.float32)

    of_bias = partial(needs_bias, n * tiles, channels)
    of_demod = partial(needs_demod, n, tiles, channels)
    of_noise = partial(needs_noise, blocks, n, h * w)
    _epilogue_triton.epilogue_backward_kernel[(n * tiles, blocks)](
        gy,
        y,
        demod if settings.demodulate else y,
        y if inputs.noise is None else inputs.noise,
        y if inputs.bias is None else inputs.bias,
        y if g is None else g,
        of_bias,
        of_demod,
        of_noise,
        n,
        h * w,
        channels,
        noise_stride(inputs.noise),
        settings.slope,
        settings.gain,
        settings.clamp,
        DEMOD=settings.demodulate,
        NOISE=inputs.noise is not None,
        BIAS=inputs.bias is not None,
        LRELU=settings.lrelu,
        CLAMP=settings.clamp >= 0,
        STORE=store,
        BIAS_GRAD=needs_bias,
        DEMOD_GRAD=needs_demod,
        NOISE_GRAD=needs_noise,
        BP=bp,
        BC=bc,
    )
    pieces.gbias = of_bias.sum(0) if needs_bias else None
    pieces.gdemod = of_demod.sum(1) / demod if needs_demod else None
    pieces.gnoise = of_noise.sum(0) if needs_noise else None
    return g


def input_gradient(
    g: Tensor, inputs: Inputs, settings: Settings, needs_x: bool, needs_style: bool, pieces: Pieces
) -> None:
    """gx = s * t, gs = sum over pixels of t * x, for t the convolution of g with the turned weight."""
    x = inputs.x
    n, width, h, w = x.shape
    _, depth, hg, wg = g.shape
    weight = packed(inputs.weight)
    kernel = inputs.weight.shape[2]
    tile = tile_of(n, h * w, width, depth, x)
    tiles = triton.cdiv(h * w, tile.bm)
    gx = _dispatch.empty(tuple(x.shape), x, nhwc=True) if needs_x else None
    partial = _dispatch.empty((n, tiles, width) if needs_style else (0,), x, dtype=torch.float32)
    _gemm_triton.input_gradient_kernel[(n * tiles, triton.cdiv(width, tile.bn))](
        g,
        weight,
        inputs.style,
        x,
        x if gx is None else gx,
        partial,
        hg,
        wg,
        h,
        w,
        depth,
        width,
        weight.stride(0),
        weight.stride(1),
        weight.stride(2),
        kernel // 2 if settings.up == 1 else 0,
        KERNEL=kernel,
        UP=settings.up,
        MODULATED=not settings.premodulated,
        X_GRAD=needs_x,
        STYLE_GRAD=needs_style,
        **shape_of(tile, x),
    )
    pieces.gx = gx
    pieces.gstyle = partial.sum(1) if needs_style else None


def weight_gradient(g: Tensor, inputs: Inputs, settings: Settings) -> Tensor:
    """[O, I, k, k] in fp32; the pixels are split over programs, their sums added in order."""
    x = inputs.x
    n, in_channels, h, w = x.shape
    _, out_channels, hg, wg = g.shape
    kernel = inputs.weight.shape[2]
    half = x.dtype in _dispatch.HALVES
    widest = 128 if half else 64
    bm = max(16, min(widest, triton.next_power_of_2(out_channels)))
    bn = max(16, min(widest if half or _triton.allows_tf32(x) else 32, triton.next_power_of_2(in_channels)))
    bk = max(16, min(64 if half else 32 if _triton.allows_tf32(x) else 16, triton.next_power_of_2(h * w)))
    tiles = triton.cdiv(out_channels, bm) * triton.cdiv(in_channels, bn)
    blocks = n * triton.cdiv(h * w, bk)
    splits = max(1, min(MOST_SPLITS, blocks, triton.cdiv(2 * FULL_GRID, tiles * kernel * kernel)))
    per_split = triton.cdiv(blocks, splits)
    splits = triton.cdiv(blocks, per_split)
    shape = (splits, kernel, kernel, out_channels, in_channels)
    partial = _dispatch.empty(shape, x, dtype=torch.float32)
    tile = Tile(bm, bn, bk, 8 if bm * bn > 64 * 128 else 4, 3)
    _gemm_triton.weight_gradient_kernel[(tiles, kernel * kernel, splits)](
        g,
        x,
        inputs.style,
        partial,
        n,
        hg,
        wg,
        h,
        w,
        out_channels,
        in_channels,
        kernel // 2 if settings.up == 1 else 0,
        per_split,
        KERNEL=kernel,
        UP=settings.up,
        MODULATE=not settings.premodulated,
        **shape_of(tile, x),
    )
    return (partial.sum(0) if splits > 1 else partial[0]).permute(2, 3, 0, 1)


def packed(weight: Tensor) -> Tensor:
    """[O, I, k, k] as [k * k, O, I]: a view of a weight kept in channels_last, else one copy."""
    by_tap = weight.permute(2, 3, 0, 1)
    return (by_tap if weight.stride(1) == 1 else by_tap.contiguous()).flatten(0, 1)


def noise_stride(noise: Tensor | None) -> int:
    """Elements from one image's noise to the next one's."""
    return 0 if noise is None or noise.shape[0] == 1 else noise.shape[2] * noise.shape[3]


def block_of(channels: int, pixels: int) -> tuple[int, int]:
    """Pixels, channels of a program that makes one pass over memory."""
    bc = max(8, min(64, triton.next_power_of_2(channels)))
    return pixels * (64 // bc if bc < 64 else 1), bc


def shape_of(tile: Tile, x: Tensor) -> dict[str, int | str]:
    """A GEMM's constants and launch options."""
    precision = "ieee" if x.dtype == torch.float32 and not _triton.allows_tf32(x) else "tf32"
    upcast = _triton.interpreted() and x.dtype != torch.float32
    return {
        "BM": tile.bm,
        "BN": tile.bn,
        "BK": tile.bk,
        "PRECISION": precision,
        "UPCAST": upcast,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def epilogue_inputs(
    z: Tensor, inputs: Inputs, settings: Settings, demod: Tensor | None, next_style: Tensor | None
) -> list[Tensor]:
    """Demodulation, noise, bias, next style; z stands where there is none."""
    there = [demod if settings.demodulate else None, inputs.noise, inputs.bias, next_style]
    return [z if t is None else t for t in there]


def epilogue_flags(
    inputs: Inputs, settings: Settings, demod: Tensor | None, next_style: Tensor | None
) -> dict[str, bool]:
    """Which parts an epilogue has."""
    return {
        "DEMOD": settings.demodulate,
        "NOISE": inputs.noise is not None,
        "BIAS": inputs.bias is not None,
        "NEXT": next_style is not None,
        "LRELU": settings.lrelu,
        "CLAMP": settings.clamp >= 0,
    }
