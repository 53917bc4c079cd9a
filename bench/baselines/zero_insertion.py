"""upfirdn2d as reference implementations write it in PyTorch: insert zeros, pad, one depthwise convolution, slice."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def zero_insertion(
    x: Tensor,  # [N, C, H, W]
    f: Tensor,  # [kh, kw]
    *,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],  # left, right, top, bottom; none negative
    gain: float,
) -> Tensor:
    """The up-sampled, filtered, down-sampled image; the up-sampled one is built."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    weight = (f * gain).flip([0, 1]).to(x.dtype).expand(c, 1, *f.shape)
    return F.conv2d(x, weight, groups=c)[:, :, ::down, ::down]
