"""MobileStyleGAN as modules that become ONNX graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.export.onnx_layers import SLOPE, Affine, Layer, Truncation, Weights, normalised, spread
from guide_fast.kernels.haar.haar_reference import SIGNS
from guide_fast.models.mobile_stylegan import SLOTS_PER_BLOCK, MobileStyleGAN
from guide_fast.models.modulation import Modulation


class Mapping(nn.Module):
    """z [N, Z], psi [N] -> ws [N, L, D]."""

    def __init__(self, generator: MobileStyleGAN, weights: Weights) -> None:
        super().__init__()
        self.slope, self.gain = generator.mapping_slope, generator.mapping_gain
        self.layers = nn.ModuleList(
            Affine(weights, f"mapping_layers.{i}") for i in range(len(generator.mapping_layers))
        )
        self.truncation = Truncation(weights, "w_mean", generator.num_ws)

    def forward(self, z: Tensor, psi: Tensor) -> Tensor:
        """ws [N, L, D]."""
        x = normalised(z)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), self.slope) * self.gain
        return self.truncation(x, psi)


class StyledConv(Layer):
    """Convolution (dense, or depthwise then pointwise) of modulated features, noise map, bias, leaky ReLU.

    Demodulation is folded into the published weights. `style` makes the scales that the caller multiplies in.
    """

    def __init__(self, weights: Weights, name: str, modulation: Modulation, *, noise: bool) -> None:
        super().__init__()
        self.style = _style(weights, name, modulation)
        self.separable = f"{name}.depthwise" in weights.tensors
        if self.separable:
            self.keep("depthwise", weights, f"{name}.depthwise", half=True)
            self.keep("pointwise", weights, f"{name}.pointwise", half=True)
        else:
            self.keep("weight", weights, f"{name}.weight", half=True)
        self.keep("bias", weights, f"{name}.bias", half=True)
        self.with_noise = noise
        if noise:
            self.keep("noise", weights, f"{name}.noise", half=True)
        self.depthwise: Tensor
        self.pointwise: Tensor
        self.weight: Tensor
        self.bias: Tensor
        self.noise: Tensor

    def forward(
        self,
        x: Tensor,  # [N, I, H, W], modulated
    ) -> Tensor:
        """[N, O, H, W]."""
        if self.separable:
            x = F.conv2d(x, self.depthwise, padding=1, groups=self.depthwise.shape[0])
            x = F.conv2d(x, self.pointwise, self.bias)
        else:
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        return F.leaky_relu(x + self.noise if self.with_noise else x, SLOPE)


class Block(nn.Module):
    """Wavelet up-sampling followed by two separable convolutions: [N, I, H, W] -> [N, O, 2H, 2W]."""

    def __init__(self, generator: MobileStyleGAN, weights: Weights, index: int, *, noise: bool) -> None:
        super().__init__()
        name = f"blocks.{index}"
        modulations = (generator.layer_module(f"{name}.{part}.modulation").modulation for part in _PARTS)
        up, first, second = (m for m in modulations if isinstance(m, Modulation))
        self.up = _style(weights, f"{name}.up", up)
        self.conv1 = StyledConv(weights, f"{name}.conv1", first, noise=noise)
        self.conv2 = StyledConv(weights, f"{name}.conv2", second, noise=noise)
        self.channels = first.bias.numel()
        self.haar = Haar(self.channels, weights.dtype)

    def forward(
        self,
        x: Tensor,  # [N, 4C, H, W]
        ws: Tensor,  # [N, L, D]
        slot: int,
    ) -> Tensor:
        """[N, O, 2H, 2W]."""
        bands, style = self.up(ws.select(1, slot)), self.conv1.style(ws.select(1, slot + 1))
        # the wavelet acts on every channel alone, so conv1's scale of a channel goes before it, where it costs nothing
        scale = bands.reshape(-1, self.channels, 4) * style.unsqueeze(2)
        x = self.haar(x * spread(scale.reshape(-1, 4 * self.channels)).to(x.dtype))
        x = self.conv1(x)
        return self.conv2(x * spread(self.conv2.style(ws.select(1, slot + 2))).to(x.dtype))


class Haar(nn.Module):
    """Inverse wavelet [N, 4C, H, W] -> [N, C, 2H, 2W], a depthwise convolution since it acts on every channel alone.

    ONNX Runtime takes a fifth of the time that sums with a pixel shuffle take.
    """

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        kernel = torch.tensor(SIGNS, dtype=dtype).mul(0.5).reshape(4, 1, 2, 2)
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1))  # [4C, 1, 2, 2]
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 2H, 2W]."""
        return F.conv_transpose2d(x, self.kernel, stride=2, groups=self.kernel.shape[0] // 4)


class ToImage(Layer):
    """Modulated 1x1 convolution to 12 wavelet channels, inverse wavelet: [N, C, H, W] -> [N, 3, 2H, 2W]."""

    def __init__(self, weights: Weights, modulation: Modulation) -> None:
        super().__init__()
        self.style = _style(weights, "to_img", modulation)
        self.keep("weight", weights, "to_img.weight", half=True)
        self.keep("bias", weights, "to_img.bias", half=True)
        self.haar = Haar(3, torch.float32)
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, 3, 2H, 2W] float32."""
        x = F.conv2d(x * spread(self.style(w)).to(x.dtype), self.weight, self.bias)
        return self.haar(x.float())


class Synthesis(Layer):
    """ws [N, L, D] -> image [N, 3, R, R] float32; with the noise maps of the weights unless `noise` is off."""

    def __init__(self, generator: MobileStyleGAN, weights: Weights, *, noise: bool) -> None:
        super().__init__()
        self.keep("input", weights, "input", half=True)
        self.conv1 = StyledConv(weights, "conv1", generator.conv1.modulation, noise=noise)
        self.blocks = nn.ModuleList(
            Block(generator, weights, index, noise=noise) for index in range(len(generator.blocks))
        )
        self.to_img = ToImage(weights, generator.to_img.modulation)
        self.input: Tensor

    def forward(self, ws: Tensor) -> Tensor:
        """[N, 3, R, R]."""
        # the constant input meets the styles by broadcasting, so that nothing is repeated
        x = self.conv1(self.input * spread(self.conv1.style(ws.select(1, 0))).to(self.input.dtype))
        for index, block in enumerate(self.blocks):
            x = block(x, ws, 1 + SLOTS_PER_BLOCK * index)
        return self.to_img(x, ws.select(1, 1 + SLOTS_PER_BLOCK * len(self.blocks)))


_PARTS = ("up", "conv1", "conv2")


def _style(weights: Weights, name: str, modulation: Modulation) -> Affine:
    """The layer's scales of channels: [N, D] -> [N, C] float32."""
    gain, scale = modulation.gain, modulation.scale
    return Affine(weights, f"{name}.modulation", gain=gain * scale, bias_gain=scale)
