"""Modulated convolution as scale, one dense convolution of cuDNN in NHWC, scale: the strongest un-fused formulation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from guide_fast.bench.baselines.epilogue import eager_epilogue, fir, fir_by_slices


def dense_conv(
    x: Tensor,  # [N, I, H, W], NHWC in memory
    weight: Tensor,  # [O, I, k, k], NHWC in memory
    style: Tensor,  # [N, I]
    noise: Tensor | None,  # [N, 1, H', W']
    bias: Tensor | None,  # [O]
    *,
    up: int,
    demodulate: bool,
    lrelu: bool,
    slices: bool = False,
) -> Tensor:
    """[N, O, up * H, up * W] in NHWC; `slices` chooses the form of the FIR that a compiler fuses."""
    k = weight.shape[2]
    modulated = x * style[:, :, None, None]
    if up == 1:
        y = F.conv2d(modulated, weight, padding=k // 2)
    else:
        y = F.conv_transpose2d(modulated, weight.transpose(0, 1), stride=2)
        y = fir_by_slices(y, k) if slices else fir(y, k)
    if demodulate:
        power = weight.float().square().sum(dim=(2, 3))  # [O, I]
        demod = (style.float().square() @ power.T + 1e-8).rsqrt()
        y = y * demod.to(y.dtype)[:, :, None, None]
    return eager_epilogue(y, noise, bias, lrelu=lrelu)
