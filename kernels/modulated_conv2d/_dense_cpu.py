"""modulated_conv2d on a CPU: PyTorch's dense convolution between native passes over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.modulated_conv2d._operator import Inputs, Pieces, Settings, demodulate
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import fir_padding, transposed

TAPS = (0.25, 0.75, 0.75, 0.25)


def forward(inputs: Inputs, next_style: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """y in NHWC, the demodulation; everything after the convolution is one pass, in place."""
    demod = demodulate(inputs, settings)
    kernel = inputs.weight.shape[2]
    if settings.up == 1 and kernel == 1:
        y = _product(inputs, settings)
    else:
        x, weight = _cheaper(inputs, settings)
        if settings.up == 1:
            y = _nhwc(torch.nn.functional.conv2d(x, weight, padding=kernel // 2))
        else:
            y = _fir(_nhwc(transposed(x, weight)), inputs.output_shape(2), fir_padding(kernel))
    torch.ops.guide_fast.native_modulated_conv2d_finish(
        y,
        demod if settings.demodulate else None,
        inputs.noise,
        inputs.bias,
        next_style,
        y,
        *_activation(settings),
    )
    return y, demod


def backward(
    gy: Tensor,
    y: Tensor,
    demod: Tensor,
    inputs: Inputs,
    settings: Settings,
    needs: Sequence[bool],
    *,
    input_gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Pieces:
    """As the Triton backward, with PyTorch's convolution gradients; `input_gradient` (g, weight) stands in for one."""
    needs_x, needs_weight, needs_style, needs_noise, needs_bias = needs
    style_through_x = needs_style and not settings.premodulated
    needs_t = needs_x or style_through_x
    n, channels, h, w = y.shape
    g = _dispatch.empty(tuple(y.shape), y, nhwc=True) if needs_t or needs_weight else None
    through_demod = settings.demodulate and (needs_weight or needs_style)
    pieces = Pieces(
        gdemod=_dispatch.empty((n, channels), y) if through_demod else None,
        gbias=_dispatch.empty((channels,), y) if needs_bias else None,
        gnoise=_dispatch.empty((n, h * w), y) if needs_noise else None,
    )
    torch.ops.guide_fast.native_modulated_conv2d_finish_backward(
        gy,
        y,
        demod if settings.demodulate else None,
        inputs.noise,
        inputs.bias,
        g,
        pieces.gdemod,
        pieces.gbias,
        pieces.gnoise,
        *_activation(settings),
    )
    if g is None:
        return pieces
    up, kernel = settings.up, inputs.weight.shape[2]
    if up == 2:
        g = _fir(g, inputs.transposed_shape(), 3 - fir_padding(kernel))  # symmetric: its adjoint but for the padding
    scaled = _modulated(inputs, settings) if needs_weight else inputs.x
    weight = inputs.weight if up == 1 else inputs.weight.transpose(0, 1)
    padding = kernel // 2 if up == 1 else 0
    by_torch = [needs_t and input_gradient is None, needs_weight, False]
    if any(by_torch):
        t, gweight, _ = torch.ops.aten.convolution_backward(
            g, scaled, weight, None, [up] * 2, [padding] * 2, [1, 1], up == 2, [0, 0], 1, by_torch
        )
    if needs_weight:
        pieces.gweight = gweight if up == 1 else gweight.transpose(0, 1)
    if needs_t:
        t = input_gradient(g, inputs.weight) if input_gradient is not None else _nhwc(t)
        pieces.gstyle = _dispatch.empty((n, t.shape[1]), y) if style_through_x else None
        pieces.gx = t if needs_x else None
        torch.ops.guide_fast.native_modulated_conv2d_scale_backward(
            t, inputs.x, None if settings.premodulated else inputs.style, pieces.gx, pieces.gstyle
        )
    return pieces


def _product(inputs: Inputs, settings: Settings) -> Tensor:
    """The 1x1 convolution in NHWC as a matrix product per image, the style in the small weight."""
    n, channels, h, w = inputs.x.shape
    pixels = _nhwc(inputs.x).permute(0, 2, 3, 1).reshape(n, h * w, channels)
    weight = inputs.weight[:, :, 0, 0].T  # [I, O]
    scaled = weight.expand(n, -1, -1) if settings.premodulated else inputs.style[:, :, None] * weight
    return torch.bmm(pixels, scaled).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def _cheaper(inputs: Inputs, settings: Settings) -> tuple[Tensor, Tensor]:
    """x with the weight, the style multiplied into whichever is smaller; only one image can share its weight."""
    n, _, h, w = inputs.x.shape
    if settings.premodulated or n > 1 or h * w < inputs.weight[:, 0].numel():
        return _modulated(inputs, settings), inputs.weight
    return inputs.x, inputs.weight * inputs.style[:, :, None, None]


def _fir(z: Tensor, shape: tuple[int, int, int, int], padding: int) -> Tensor:
    """[1, 3, 3, 1] / 4 along both axes, `padding` zeros before the first pixel; NHWC."""
    taps = torch.tensor(TAPS)
    y = _dispatch.empty(shape, z, nhwc=True)
    settings = (1, 1, 1, 1, padding, padding)  # neither up nor down
    torch.ops.guide_fast.native_upfirdn2d(
        z, torch.outer(taps, taps), y, list(z.shape), shape[2], shape[3], True, *settings
    )
    return y


def _activation(settings: Settings) -> tuple[str, float, float, float]:
    return settings.activation, settings.slope, settings.gain, settings.clamp


def _modulated(inputs: Inputs, settings: Settings) -> Tensor:
    return inputs.x if settings.premodulated else inputs.x * inputs.style[:, :, None, None]


def _nhwc(z: Tensor) -> Tensor:
    return z.contiguous(memory_format=torch.channels_last)
