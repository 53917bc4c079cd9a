"""modulated_conv2d by PyTorch's dense convolution between two elementwise steps; one fused epilogue on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch, _triton
from guide_fast.kernels.modulated_conv2d._operator import Inputs, Pieces, Settings, demodulate
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import fir, transposed


def forward(inputs: Inputs, next_style: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """y in NHWC, the demodulation; the epilogue is a Triton kernel."""
    from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

    demod = demodulate(inputs, settings)
    scaled = _modulated(inputs, settings)
    y = _dispatch.empty(inputs.output_shape(settings.up), inputs.x, nhwc=True)
    if settings.up == 1:
        z = torch.nn.functional.conv2d(scaled, inputs.weight, padding=inputs.weight.shape[2] // 2)
        finish = modulated_conv2d_triton.epilogue
    else:
        z = transposed(scaled, inputs.weight)
        finish = modulated_conv2d_triton.fir
    finish(_nhwc(z), y, inputs, settings, demod, next_style)
    return y, demod


def backward(gy: Tensor, y: Tensor, demod: Tensor, inputs: Inputs, settings: Settings, needs: Sequence[bool]) -> Pieces:
    """As the Triton backward, with PyTorch's convolution gradients."""
    pieces = Pieces()
    if _triton.refuses(y) is None:
        from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

        g = modulated_conv2d_triton.epilogue_backward(gy, y, demod, inputs, settings, needs, pieces)
        if g is not None and settings.up == 2:
            g = modulated_conv2d_triton.fir_adjoint(g, inputs)
    else:
        g = _epilogue_backward(gy, y, demod, inputs, settings, needs, pieces)
        if settings.up == 2:
            g = _fir_adjoint(g, inputs.weight.shape[2])
    style_through_x = needs[2] and not settings.premodulated
    needs_t = needs[0] or style_through_x
    if not needs_t and not needs[1]:
        return pieces
    scaled = _modulated(inputs, settings) if needs[1] else inputs.x
    up, kernel = settings.up, inputs.weight.shape[2]
    weight = inputs.weight if up == 1 else inputs.weight.transpose(0, 1)
    padding = kernel // 2 if up == 1 else 0
    t, gweight, _ = torch.ops.aten.convolution_backward(
        g, scaled, weight, None, [up] * 2, [padding] * 2, [1, 1], up == 2, [0, 0], 1, [needs_t, needs[1], False]
    )
    if needs[1]:
        pieces.gweight = (gweight if up == 1 else gweight.transpose(0, 1)).float()
    if style_through_x:
        pieces.gstyle = (t.float() * inputs.x.float()).sum(dim=(2, 3))
    if needs[0]:
        pieces.gx = t if settings.premodulated else t * inputs.style[:, :, None, None]
    return pieces


def _epilogue_backward(
    gy: Tensor,
    y: Tensor,
    demod: Tensor,
    inputs: Inputs,
    settings: Settings,
    needs: Sequence[bool],
    pieces: Pieces,
) -> Tensor:
    slope = torch.where(y < 0, settings.slope * settings.gain, settings.gain) if settings.lrelu else settings.gain
    g = gy * slope
    if settings.clamp >= 0:
        g = g * (y.abs() < settings.clamp)
    if needs[3]:
        pieces.gnoise = g.sum(1).flatten(1)
    if needs[4]:
        pieces.gbias = g.sum(dim=(0, 2, 3))
    if not settings.demodulate:
        return g
    if needs[1] or needs[2]:
        pre = y / settings.gain
        if settings.lrelu:
            pre = torch.where(y < 0, pre / settings.slope, pre)
        if inputs.noise is not None:
            pre = pre - inputs.noise
        if inputs.bias is not None:
            pre = pre - inputs.bias[:, None, None]
        pieces.gdemod = (g * pre).sum(dim=(2, 3)) / demod
    return g * demod[:, :, None, None]


def _fir_adjoint(g: Tensor, kernel: int) -> Tensor:
    return fir(g, 4 - kernel)  # the symmetric FIR with the other padding


def _modulated(inputs: Inputs, settings: Settings) -> Tensor:
    return inputs.x if settings.premodulated else inputs.x * inputs.style[:, :, None, None]


def _nhwc(z: Tensor) -> Tensor:
    return z.contiguous(memory_format=torch.channels_last)
