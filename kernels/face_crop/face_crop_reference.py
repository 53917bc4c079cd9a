"""face_crop in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_fast.kernels.face_crop.framing import Framing


def face_crop_reference(
    image: Tensor,  # [N, 3, H, W]
    framing: Framing,
) -> Tensor:
    """Dense matrices on both sides, then channel order, mean, scale: [N, 3, size, size], differentiable."""
    wide = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    rows, columns = (matrix.to(wide) for matrix in framing.matrices(*image.shape[2:]))
    crop = rows @ (wide[:, list(framing.order)] @ columns.T)
    mean, scale = (crop.new_tensor(values)[:, None, None] for values in (framing.mean, framing.scale))
    return ((crop - mean) * scale).to(image.dtype)
