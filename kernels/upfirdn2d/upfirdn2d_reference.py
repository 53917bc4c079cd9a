"""upfirdn2d in plain PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def upfirdn2d_reference(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [kh, kw] or [k], as correlation
    *,
    up: tuple[int, int],  # (x, y)
    down: tuple[int, int],
    padding: tuple[int, int, int, int],  # left, right, top, bottom
    gain: float,
) -> Tensor:
    """Zero-insert, pad or crop, correlate, keep every down-th pixel; differentiable, any dtype."""
    n, c, h, w = x.shape
    zeros = (0, up[0] - 1, 0, 0, 0, up[1] - 1)
    x = F.pad(x.reshape(n, c, h, 1, w, 1), zeros).reshape(n, c, h * up[1], w * up[0])
    x = F.pad(x, padding)  # negative numbers crop
    f = f.to(x.dtype)
    for kernel in [f[None], f[:, None]] if f.ndim == 1 else [f]:
        x = F.conv2d(x, kernel.expand(c, 1, *kernel.shape), groups=c)
    return x[:, :, :: down[1], :: down[0]] * gain
