"""modulated_conv2d on a CPU by Winograd's F(4x4, 3x3): 3x3 kernels without up-sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.modulated_conv2d import _dense_cpu
from guide_fast.kernels.modulated_conv2d._operator import Inputs, Pieces, Settings, demodulate, tiles_of

LINEAR = ("linear", 0.0, 1.0, -1.0)  # no activation, no gain, no clamp


def forward(inputs: Inputs, next_style: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """y in NHWC, the demodulation; the whole layer is one pass over x, one over y."""
    _check(inputs.weight, settings)
    demod = demodulate(inputs, settings)
    y = _convolved(
        inputs.x,
        inputs.weight,
        style=None if settings.premodulated else inputs.style,
        demod=demod if settings.demodulate else None,
        noise=inputs.noise,
        bias=inputs.bias,
        next_style=next_style,
        activation=(settings.activation, settings.slope, settings.gain, settings.clamp),
    )
    return y, demod


def backward(gy: Tensor, y: Tensor, demod: Tensor, inputs: Inputs, settings: Settings, needs: Sequence[bool]) -> Pieces:
    """As that of `_dense_cpu`; the gradient of a 3x3 convolution's input is one too, with the weight turned."""
    _check(inputs.weight, settings)
    return _dense_cpu.backward(gy, y, demod, inputs, settings, needs, input_gradient=input_gradient)


def input_gradient(
    g: Tensor,  # [N, O, H, W] in NHWC
    weight: Tensor,  # [O, I, 3, 3]
) -> Tensor:
    """[N, I, H, W] in NHWC."""
    return _convolved(g, weight, adjoint=True)


def _convolved(
    x: Tensor,
    weight: Tensor,
    *,
    adjoint: bool = False,
    style: Tensor | None = None,
    demod: Tensor | None = None,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    next_style: Tensor | None = None,
    activation: tuple[str, float, float, float] = LINEAR,
) -> Tensor:
    n, channels, h, w = x.shape
    out = weight.shape[1 if adjoint else 0]
    tiles = tiles_of(n, h, w)
    keep_weight = tiles >= out  # whichever is smaller lies in memory whole, transformed: the weight, or x
    rows, step = (channels + 2, _step(out)) if keep_weight else (max(tiles, 14) + 1, _step(channels))
    y = _dispatch.empty((n, out, h, w), x, nhwc=True)
    torch.ops.guide_fast.native_modulated_conv2d_winograd(
        x,
        weight if _is_dense(weight) else weight.contiguous(),
        adjoint,
        style,
        demod,
        noise,
        bias,
        next_style,
        _dispatch.empty((1, 36, rows, step), x),
        keep_weight,
        y,
        *activation,
    )
    return y


def _is_dense(weight: Tensor) -> bool:
    return weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last)


def _step(channels: int) -> int:
    """From row to row of the scratch, in floats; csrc/include/guide_fast/modulated_conv2d.h says why."""
    return -(-channels // 16) * 16 + 16


def _check(weight: Tensor, settings: Settings) -> None:
    if settings.up != 1 or weight.shape[2] != 3:
        raise KernelError(
            f"impl='winograd_cpu' is for 3x3, up=1, not {tuple(weight.shape)} with up={settings.up}; use 'auto'"
        )
