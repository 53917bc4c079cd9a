"""Modulated convolution as the reference implementations do it: a weight per image, one grouped convolution."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from guide_fast.bench.baselines.epilogue import eager_epilogue, fir


def grouped_conv(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    noise: Tensor | None,  # [N, 1, H', W']
    bias: Tensor | None,  # [O]
    *,
    up: int,
    demodulate: bool,
    lrelu: bool,
) -> Tensor:
    """[N, O, up * H, up * W]; builds the [N, O, I, k, k] tensor of modulated weights."""
    n, channels, h, w = x.shape
    out, _, k, _ = weight.shape
    modulated = weight[None] * style[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        power = modulated.float().square().sum(dim=(2, 3, 4)) + 1e-8
        modulated = modulated * power.rsqrt().to(x.dtype)[:, :, None, None, None]
    x = x.contiguous().reshape(1, n * channels, h, w)
    if up == 1:
        y = F.conv2d(x, modulated.reshape(n * out, channels, k, k), padding=k // 2, groups=n)
        y = y.reshape(n, out, h, w)
    else:
        transposed = modulated.transpose(1, 2).reshape(n * channels, out, k, k)
        y = F.conv_transpose2d(x, transposed, stride=2, groups=n)
        y = fir(y.reshape(n, out, *y.shape[2:]), k)
    return eager_epilogue(y, noise, bias, lrelu=lrelu)
