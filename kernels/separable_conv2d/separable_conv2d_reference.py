"""Style-modulated separable convolution in plain PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels.bias_act.bias_act_reference import SLOPE
from guide_fast.kernels.haar.haar_reference import haar_reference


def separable_conv2d_reference(
    x: Tensor,  # [N, I, H, W]; with haar_style [N, 4I, H/2, W/2]
    depthwise: Tensor | None,  # [I, 1, 3, 3]
    pointwise: Tensor,  # [O, I, 1, 1]
    style: Tensor,  # [N, I]
    *,
    haar_style: Tensor | None,  # [N, 4I]
    noise: Tensor | None,  # [1 or N, 1, H, W]
    bias: Tensor | None,  # [O]
    activation: str,
    gain: float,
    clamp: float | None,
    next_style: Tensor | None,  # [N, O]
) -> Tensor:
    """[N, O, H, W], differentiable, any dtype."""
    if haar_style is not None:
        x = haar_reference(x, haar_style)
    x = x * style[:, :, None, None]
    if depthwise is not None:
        x = F.conv2d(x, depthwise, padding=1, groups=x.shape[1])
    x = F.conv2d(x, pointwise, bias)
    if noise is not None:
        x = x + noise
    if activation == "lrelu":
        x = F.leaky_relu(x, SLOPE)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x if next_style is None else x * next_style[:, :, None, None]
