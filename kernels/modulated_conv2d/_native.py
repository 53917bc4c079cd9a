"""modulated_conv2d by the compiled library: CUDA kernels, the native CPU forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.modulated_conv2d._operator import Inputs, Pieces, Settings


def forward(inputs: Inputs, next_style: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """y in NHWC, the demodulation."""
    x = inputs.x
    y = _dispatch.empty(inputs.output_shape(settings.up), x, nhwc=True)
    z = _dispatch.empty(inputs.transposed_shape(), x, nhwc=True) if settings.up == 2 else None
    demod = _dispatch.empty(tuple(y.shape[:2]) if settings.demodulate else (0,), x, dtype=torch.float32)
    packed, power = _prepared(inputs.weight, settings.demodulate)
    torch.ops.guide_fast.native_modulated_conv2d(
        x,
        packed,
        power,
        inputs.style.contiguous(),
        _contiguous(inputs.noise),
        _contiguous(inputs.bias),
        _contiguous(next_style),
        demod,
        z,
        y,
        *_numbers(inputs, settings),
    )
    return y, demod


def backward(gy: Tensor, y: Tensor, demod: Tensor, inputs: Inputs, settings: Settings, needs: Sequence[bool]) -> Pieces:
    """The gradients that `needs` asks for, complete: the demodulation's part is in them."""
    x, weight = inputs.x, inputs.weight
    needs_x, needs_weight, needs_style, needs_noise, needs_bias = needs
    n, _, h, w = y.shape
    out_channels, in_channels, k, _ = weight.shape

    def fp32(wanted: bool, *shape: int) -> Tensor | None:
        return _dispatch.empty(shape, x, dtype=torch.float32) if wanted else None

    store = needs_x or needs_weight or (needs_style and not settings.premodulated)
    g = _dispatch.empty(tuple(y.shape), y, nhwc=True) if store else None
    gz = _dispatch.empty(inputs.transposed_shape(), y, nhwc=True) if store and settings.up == 2 else None
    gx = _dispatch.empty(tuple(x.shape), x, nhwc=True) if needs_x else None
    gdemod = fp32(settings.demodulate and (needs_weight or needs_style), n, out_channels)
    gpacked = fp32(needs_weight, k * k, in_channels, out_channels)
    gstyle = fp32(needs_style, n, in_channels)
    gbias, gnoise = fp32(needs_bias, out_channels), fp32(needs_noise, n, h * w)
    packed, power = _prepared(weight, settings.demodulate)
    torch.ops.guide_fast.native_modulated_conv2d_backward(
        gy,
        y,
        x,
        packed,
        power,
        inputs.style.contiguous(),
        _contiguous(inputs.noise),
        _contiguous(inputs.bias),
        demod,
        g,
        gz,
        gdemod,
        gx,
        gpacked,
        gstyle,
        gbias,
        gnoise,
        *_numbers(inputs, settings),
    )
    by_tap = None if gpacked is None else gpacked.reshape(k, k, in_channels, out_channels)
    gweight = None if by_tap is None else by_tap.permute(3, 2, 0, 1)
    return Pieces(gx=gx, gweight=gweight, gstyle=gstyle, gbias=gbias, gnoise=gnoise)


def _prepared(weight: Tensor, demodulate: bool) -> tuple[Tensor, Tensor | None]:
    out_channels, in_channels, k, _ = weight.shape
    packed = _dispatch.empty((k * k, in_channels, out_channels), weight)
    power = _dispatch.empty((out_channels, in_channels), weight, dtype=torch.float32) if demodulate else None
    torch.ops.guide_fast.native_modulated_conv2d_weight(weight.contiguous(), packed, power)
    return packed, power


def _contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def _numbers(inputs: Inputs, settings: Settings) -> tuple[int, int, bool, str, float, float, float]:
    return (
        inputs.weight.shape[2],
        settings.up,
        settings.premodulated,
        settings.activation,
        settings.slope,
        settings.gain,
        settings.clamp,
    )
