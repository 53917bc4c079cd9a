"""EG3D's own parts as modules that become ONNX graphs; mapping, planes are StyleGAN2's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_stylegan2 import Block
from guide_fast.models.super_resolution import SuperResolution


class Enlarging(nn.Module):
    """features [N, C, R, R], whose first three channels are the raw image, ws [N, L, D] -> image [N, 3, R', R']."""

    def __init__(self, network: SuperResolution, weights: Weights, name: str, *, resolution: int) -> None:
        super().__init__()
        noise = network.noise == "const"
        self.block0 = Block(network.block0, weights, f"{name}.block0", noise=noise)
        self.block1 = Block(network.block1, weights, f"{name}.block1", noise=noise)
        self.resized = resolution != network.input_resolution
        if self.resized:
            rows = resizing(resolution, network.input_resolution, antialias=network.antialias)
            self.register_buffer("rows", rows)  # [R", R]
            self.register_buffer("columns", rows.T.contiguous())
            self.rows: Tensor
            self.columns: Tensor

    def forward(self, features: Tensor, ws: Tensor) -> Tensor:
        """[N, 3, R', R']."""
        x = features
        if self.resized:
            x = torch.matmul(torch.matmul(self.rows, x), self.columns)
        last = [ws.select(1, ws.shape[1] - 1)] * 3
        y, image = self.block0(x, x.narrow(1, 0, 3), last)
        _, image = self.block1(y, image, last)
        assert isinstance(image, Tensor)
        return image


def resizing(before: int, after: int, *, antialias: bool) -> Tensor:
    """Bilinear resizing along one axis as a matrix [after, before]: both axes are resized alone."""
    ones = torch.eye(before)[None, None]  # each row is an image of one pixel
    size = (before, after)
    mode = "bilinear"
    resized = F.interpolate(ones, size=size, mode=mode, align_corners=False, antialias=antialias)
    return resized[0, 0].T.contiguous()
