"""modulated_conv2d in plain PyTorch: scale, convolve, scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU, as StyleGAN uses it
EPSILON = 1e-8  # under the root of the demodulation


def modulated_conv2d_reference(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    *,
    noise: Tensor | None,  # [N or 1, 1, H', W']
    bias: Tensor | None,  # [O]
    next_style: Tensor | None,  # [N, O]
    up: int,
    demodulate: bool,
    premodulated: bool,
    activation: str,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """clamp(act(d * conv(s * x, W) + noise + bias) * gain) * next_style, differentiable, any dtype."""
    if not premodulated:
        x = x * style[:, :, None, None]
    y = F.conv2d(x, weight, padding=weight.shape[2] // 2) if up == 1 else fir(transposed(x, weight), weight.shape[2])
    if demodulate:
        y = y * demodulation(power(weight), style).to(y.dtype)[:, :, None, None]
    if noise is not None:
        y = y + noise
    if bias is not None:
        y = y + bias[:, None, None]
    if activation == "lrelu":
        y = F.leaky_relu(y, SLOPE)
    y = y * gain
    if clamp is not None:
        y = y.clamp(-clamp, clamp)
    return y if next_style is None else y * next_style[:, :, None, None]


def power(weight: Tensor) -> Tensor:
    """Sum of W^2 over the taps, [O, I], at least fp32."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32)).square().sum(dim=(2, 3))


def demodulation(power: Tensor, style: Tensor) -> Tensor:
    """rsqrt(s^2 A^T + 1e-8), [N, O]: one GEMM, never [N, O, I, k, k]."""
    return (style.to(power.dtype).square() @ power.T + EPSILON).rsqrt()


def transposed(x: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution of stride 2, [N, O, 2H + k - 2, 2W + k - 2]."""
    return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)


def fir(z: Tensor, kernel: int) -> Tensor:
    """[1, 3, 3, 1] / 4 along both axes of what `transposed` gives, [N, O, 2H, 2W]."""
    z = F.pad(z, [fir_padding(kernel)] * 4)
    z = (z[..., :-3] + z[..., 3:]) * 0.25 + (z[..., 1:-2] + z[..., 2:-1]) * 0.75
    return (z[..., :-3, :] + z[..., 3:, :]) * 0.25 + (z[..., 1:-2, :] + z[..., 2:-1, :]) * 0.75


def fir_padding(kernel: int) -> int:
    """Zeros on each side of the transposed convolution before the FIR."""
    return 1 if kernel == 3 else 2
