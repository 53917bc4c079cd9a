"""bias_act in plain PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SLOPE = 0.2  # of the leaky ReLU, as StyleGAN uses it


def bias_act_reference(
    x: Tensor,  # [N, C, H, W]
    bias: Tensor | None,  # [C]
    *,
    activation: str,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """clamp(act(x + bias) * gain), differentiable, any dtype."""
    if bias is not None:
        x = x + bias[:, None, None]
    if activation == "lrelu":
        x = F.leaky_relu(x, SLOPE)
    x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
