"""StyleGAN2 as modules that become ONNX graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.export.onnx_layers import (
    SLOPE,
    Affine,
    Layer,
    ModulatedConv,
    Truncation,
    Weights,
    normalised,
    spread,
)
from guide_fast.models import stylegan2_layers
from guide_fast.models.modulation import Modulation

_UP = (
    0.25,
    0.75,
    0.75,
    0.25,
)  # the resampling filter along one axis, with the gain of 2 that zeros between pixels need


class Mapping(nn.Module):
    """z [N, Z], psi [N], of a conditional network c [N, C] -> ws [N, L, D].

    `c_scale` multiplies the label, as EG3D does.
    """

    def __init__(
        self, network: stylegan2_layers.Mapping, weights: Weights, name: str, *, slots: int, c_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.c_scale = c_scale
        self.embed = _dense(network.embed, weights, f"{name}.embed") if network.c_dim else None
        self.layers = nn.ModuleList(
            _dense(network.get_submodule(f"fc{i}"), weights, f"{name}.fc{i}") for i in range(network.num_layers)
        )
        self.truncation = Truncation(weights, f"{name}.w_avg", slots)

    def forward(self, z: Tensor, psi: Tensor, c: Tensor | None = None) -> Tensor:
        """ws [N, L, D]."""
        x = normalised(z)
        if self.embed is not None:
            assert c is not None
            c = c if self.c_scale == 1 else c * self.c_scale
            x = torch.cat((x, normalised(self.embed(c))), dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2)
        return self.truncation(x, psi)


class StyledConv(Layer):
    """Modulated 3x3 convolution, demodulated; noise, bias, leaky ReLU, gain, clamp.

    The gain comes before the leaky ReLU, which it passes unchanged: into the demodulation, the noise's strength, the
    bias, all of which are small.
    """

    def __init__(
        self, layer: stylegan2_layers.StyledConv, weights: Weights, name: str, *, noise: bool, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.style = style_of(layer.modulation, weights, name)
        self.gain = math.sqrt(2) * gain
        self.conv = ModulatedConv(weights, name, up=layer.up, gain=self.gain)
        self.keep("bias", weights, f"{name}.bias", factor=self.gain, half=True)
        self.with_noise = noise and layer.use_noise
        if self.with_noise:
            self.keep("noise", weights, f"{name}.noise_const", half=True)
            self.keep("strength", weights, f"{name}.noise_strength", factor=self.gain, half=True)
        self.clamp = None if layer.clamp is None else layer.clamp * gain
        self.bias: Tensor
        self.noise: Tensor
        self.strength: Tensor

    def forward(
        self,
        x: Tensor,  # [N or 1, I, H, W]
        w: Tensor,  # [N, D]
    ) -> Tensor:
        """[N, O, up * H, up * W] in x's dtype."""
        y = self.conv(x, self.style(w))
        if self.with_noise:
            y = y + self.noise * self.strength
        y = F.leaky_relu(y + self.bias.unsqueeze(1).unsqueeze(2), SLOPE)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class ToRGB(Layer):
    """Modulated 1x1 convolution to image channels: [N, I, H, W] -> [N, O, H, W] float32."""

    def __init__(self, layer: stylegan2_layers.ToRGB, weights: Weights, name: str) -> None:
        super().__init__()
        self.style = style_of(layer.modulation, weights, name)
        self.keep("weight", weights, f"{name}.weight", half=True)
        self.keep("bias", weights, f"{name}.bias", half=True)
        self.clamp = layer.clamp
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, O, H, W]."""
        y = F.conv2d(x * spread(self.style(w)).to(x.dtype), self.weight, self.bias)
        return (y if self.clamp is None else y.clamp(-self.clamp, self.clamp)).float()


class Skip(Layer):
    """The residual path: 1x1 convolution, then up-sampling."""

    def __init__(self, layer: stylegan2_layers.Skip, weights: Weights, name: str, *, gain: float) -> None:
        super().__init__()
        self.keep("weight", weights, f"{name}.weight", factor=layer.gain * gain, half=True)
        self.doubling = Doubling(layer.weight.shape[0], weights.dtype) if layer.up == 2 else None
        self.weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[N, O, up * H, up * W]."""
        y = F.conv2d(x, self.weight)
        return y if self.doubling is None else self.doubling(y)


class Doubling(nn.Module):
    """Twice the size by [1, 3, 3, 1]: [N, C, H, W] -> [N, C, 2H, 2W], every channel as an image of its own."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        row = torch.tensor(_UP, dtype=dtype)
        self.register_buffer("kernel", torch.outer(row, row)[None, None])  # [1, 1, 4, 4]
        self.channels = channels
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 2H, 2W]."""
        height, width = x.shape[2], x.shape[3]
        y = F.conv_transpose2d(x.reshape(-1, 1, height, width), self.kernel, stride=2, padding=1)
        return y.reshape(-1, self.channels, 2 * height, 2 * width)


class Block(Layer):
    """One resolution: as `stylegan2_layers.Block`, with features in the export's precision, the image in float32."""

    def __init__(self, block: stylegan2_layers.Block, weights: Weights, name: str, *, noise: bool) -> None:
        super().__init__()
        self.first, self.dtype = block.first, weights.dtype
        gain = math.sqrt(0.5) if block.residual else 1.0
        if block.first:
            self.keep("const", weights, f"{name}.const", half=True)
        else:
            self.conv0 = StyledConv(block.conv0, weights, f"{name}.conv0", noise=noise)
        self.conv1 = StyledConv(block.conv1, weights, f"{name}.conv1", noise=noise, gain=gain)
        self.torgb = ToRGB(block.torgb, weights, f"{name}.torgb") if block.with_image else None
        self.skip = Skip(block.skip, weights, f"{name}.skip", gain=gain) if block.residual else None
        channels = block.torgb.weight.shape[0] if block.with_image else 3
        self.doubling = Doubling(channels, torch.float32) if block.up == 2 else None
        self.const: Tensor

    def forward(
        self,
        x: Tensor | None,  # [N, I, H, W]; None for the first block
        image: Tensor | None,  # [N, C, H, W] of the block before, where it has one
        w: Sequence[Tensor],  # [N, D] for each convolution, the image output
    ) -> tuple[Tensor, Tensor | None]:
        """Features with the image so far."""
        if self.first:
            # the constant meets the styles by broadcasting, so that nothing is repeated
            y = self.conv1(self.const.unsqueeze(0), w[0])
        else:
            assert x is not None
            x = x.to(self.dtype)
            y = self.conv1(self.conv0(x, w[0]), w[1])
            y = y if self.skip is None else y + self.skip(x)
        if image is not None and self.doubling is not None:
            image = self.doubling(image)
        if self.torgb is not None:
            seen = self.torgb(y, w[-1])
            image = seen if image is None else image + seen
        return y, image


class Synthesis(nn.Module):
    """ws [N, L, D] -> image [N, C, R, R] float32 (tri-planes are such an image of 96 channels)."""

    def __init__(self, network: stylegan2_layers.Synthesis, weights: Weights, name: str, *, noise: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(network.block(size), weights, f"{name}.b{size}", noise=noise) for size in network.sizes
        )
        self.convs = [network.block(size).num_convs for size in network.sizes]

    def forward(self, ws: Tensor) -> Tensor:
        """[N, C, R, R]."""
        x: Tensor | None = None
        image: Tensor | None = None
        slot = 0
        for block, convs in zip(self.blocks, self.convs, strict=True):
            x, image = block(x, image, [ws.select(1, slot + i) for i in range(convs + 1)])
            slot += convs
        assert image is not None
        return image


def style_of(modulation: Modulation, weights: Weights, name: str) -> Affine:
    """The layer's scales of channels: [N, D] -> [N, C] float32."""
    gain, scale = modulation.gain, modulation.scale
    return Affine(weights, f"{name}.modulation", gain=gain * scale, bias_gain=scale)


def _dense(layer: nn.Module, weights: Weights, name: str) -> Affine:
    assert isinstance(layer, stylegan2_layers.Dense)
    return Affine(weights, name, gain=layer.gain, bias_gain=layer.lr)
