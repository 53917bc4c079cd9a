"""The layers of StyleGAN2: mapping network, styled convolutions, blocks, the synthesis network made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.kernels import modulated_conv2d
from guide_fast.kernels.upfirdn2d.upfirdn2d import setup_filter, upsample2d
from guide_fast.models.modulation import Modulation

ARCHITECTURES = ("skip", "resnet", "orig")
RESAMPLE_FILTER = (1, 3, 3, 1)
NOISES = ("const", "random", "none")


class Dense(nn.Module):
    """Fully connected layer with an equalised learning rate: [N, I] -> [N, O], perhaps with a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, lr: float, lrelu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.gain, self.lr, self.lrelu = lr / math.sqrt(inputs), lr, lrelu

    def forward(self, x: Tensor) -> Tensor:
        """[N, O]."""
        x = F.linear(x * self.gain, self.weight, self.bias * self.lr)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.lrelu else x


class Mapping(nn.Module):
    """z [N, Z] with a label c [N, C] -> style vectors [N, D].

    `w_avg` [D] is the published mean over z. Source: StyleGAN2-ADA (arXiv 2006.06676), the conditional form included:
    z and the embedded label are normalised to unit mean square, then joined.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_layers: int,
        embed_features: int | None = None,
        layer_features: int | None = None,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        embedded = (embed_features or w_dim) if c_dim else 0
        widths = [z_dim + embedded, *[layer_features or w_dim] * (num_layers - 1), w_dim]
        if c_dim:
            self.embed = Dense(c_dim, embedded, lr=1.0, lrelu=False)
        self.num_layers = num_layers
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(f"fc{i}", Dense(inputs, outputs, lr=lr_multiplier, lrelu=True))
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.w_avg: Tensor
        self.c_dim = c_dim

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        """[N, D]; `c` is read by conditional networks only."""
        x = _normalised(z)
        if self.c_dim:
            assert c is not None
            x = torch.cat((x, _normalised(self.embed(c))), dim=1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class StyledConv(nn.Module):
    """Modulated 3x3 convolution with demodulation, noise, bias, leaky ReLU; up-samples with `up=2`."""

    def __init__(
        self, w_dim: int, inputs: int, outputs: int, size: int, *, up: int, clamp: float | None, use_noise: bool
    ) -> None:
        super().__init__()
        self.modulation = Modulation(w_dim, inputs, gain=1 / math.sqrt(w_dim))
        # in memory as the convolution reads it, so that no call copies it; a saved file has it as it is published
        if up == 1:
            weight = torch.empty(outputs, inputs, 3, 3, memory_format=torch.channels_last)
        else:
            weight = torch.empty(inputs, outputs, 3, 3, memory_format=torch.channels_last).transpose(0, 1)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(outputs))
        self.up, self.clamp, self.use_noise = up, clamp, use_noise
        if use_noise:
            self.register_buffer("noise_const", torch.empty(size, size))
            self.noise_strength = nn.Parameter(torch.empty([]))
            self.noise_const: Tensor

    def forward(
        self,
        x: Tensor,  # [N, I, H, W]
        style: Tensor,  # [N, I], the output of `modulation`
        *,
        noise: str,
        random: torch.Generator | None,
        impl: str,
        gain: float = 1.0,
        premodulated: bool = False,
        next_style: Tensor | None = None,  # [N, O]
    ) -> Tensor:
        """[N, O, up * H, up * W] in x's dtype; `gain` multiplies output and clamp."""
        dtype = x.dtype
        added = self._noise(len(x), noise, random)
        return modulated_conv2d(
            x,
            self.weight.to(dtype),
            style.to(dtype),
            noise=None if added is None else added.to(dtype),
            bias=self.bias.to(dtype),
            up=self.up,
            premodulated=premodulated,
            gain=math.sqrt(2) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
            next_style=None if next_style is None else next_style.to(dtype),
            impl=impl,
        )

    def _noise(self, count: int, noise: str, random: torch.Generator | None) -> Tensor | None:
        """[1 or N, 1, H', W'], scaled; one channel, so scaling it costs a 1/C-th of what the convolution writes."""
        if not self.use_noise or noise == "none":
            return None
        if noise == "const":
            return (self.noise_const * self.noise_strength)[None, None]
        assert random is not None
        drawn = torch.randn(count, 1, *self.noise_const.shape, generator=random, device=random.device)
        return drawn.to(self.noise_const) * self.noise_strength


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, w_dim: int, inputs: int, outputs: int, *, clamp: float | None) -> None:
        super().__init__()
        self.modulation = Modulation(w_dim, inputs, 1 / math.sqrt(inputs), gain=1 / math.sqrt(w_dim))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor, *, impl: str) -> Tensor:
        """[N, I, H, W], w [N, D] -> [N, O, H, W] in x's dtype."""
        return modulated_conv2d(
            x,
            self.weight.to(x.dtype),
            self.modulation(w).flatten(1).to(x.dtype),
            bias=self.bias.to(x.dtype),
            demodulate=False,
            activation="linear",
            clamp=self.clamp,
            impl=impl,
        )


class Skip(nn.Module):
    """The residual path of a block: 1x1 convolution, then up-sampling (both are linear, so the cheaper order)."""

    def __init__(self, inputs: int, outputs: int, *, up: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.gain, self.up = 1 / math.sqrt(inputs), up

    def forward(self, x: Tensor, resample: Tensor, *, gain: float, impl: str) -> Tensor:
        """[N, I, H, W] -> [N, O, up * H, up * W]."""
        x = F.conv2d(x, (self.weight * (self.gain * gain)).to(x.dtype))
        return upsample2d(x, resample, impl=impl) if self.up == 2 else x


class Block(nn.Module):
    """One resolution: up-sampling convolution, convolution, image output; the first block has a constant instead.

    `inputs` 0 makes the first block. `up` 1 keeps the resolution of its input, and of the image it adds to. `half`
    computes in float16, on a CUDA device only. Features are [N, C, size, size], the image [N, img_channels, size, size]
    in float32.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        w_dim: int,
        size: int,
        img_channels: int,
        last: bool,
        architecture: str = "skip",
        clamp: float | None = None,
        half: bool = False,
        use_noise: bool = True,
        up: int = 2,
    ) -> None:
        super().__init__()
        self.first, self.up, self.half_precision, self.channels_last = inputs == 0, up, half, True
        if self.first:
            self.const = nn.Parameter(torch.empty(outputs, size, size))
        else:
            self.conv0 = StyledConv(w_dim, inputs, outputs, size, up=up, clamp=clamp, use_noise=use_noise)
        self.conv1 = StyledConv(w_dim, outputs, outputs, size, up=1, clamp=clamp, use_noise=use_noise)
        self.with_image = last or architecture == "skip"
        if self.with_image:
            self.torgb = ToRGB(w_dim, outputs, img_channels, clamp=clamp)
        self.residual = architecture == "resnet" and not self.first
        if self.residual:
            self.skip = Skip(inputs, outputs, up=up)
        self.register_buffer("resample", setup_filter(RESAMPLE_FILTER), persistent=False)
        self.resample: Tensor

    @property
    def num_convs(self) -> int:
        """How many style vectors the convolutions read; the image output reads the one after them."""
        return 1 if self.first else 2

    def forward(
        self,
        x: Tensor | None,  # [N, I, H, W]; None for the first block
        image: Tensor | None,  # [N, img_channels, H, W] of the block before, where it has one
        ws: Tensor,  # [N, num_convs + 1, D]
        *,
        noise: str = "const",
        random: torch.Generator | None = None,
        impl: str = "auto",
    ) -> tuple[Tensor, Tensor | None]:
        """Features with the image so far."""
        dtype = torch.float16 if self.half_precision and ws.is_cuda else self.conv1.weight.dtype
        options = {"noise": noise, "random": random, "impl": impl}
        style = self.conv1.modulation(ws[:, self.num_convs - 1]).flatten(1)
        if self.first:
            x = self._laid_out(self.const.to(dtype)[None].repeat(len(ws), 1, 1, 1), impl)
            x = self.conv1(x, style, **options)
        else:
            assert x is not None
            x = self._laid_out(x.to(dtype), impl)
            gain = math.sqrt(0.5) if self.residual else 1.0
            fuse = not torch.is_grad_enabled()  # conv0 can then write what conv1 reads
            style0 = self.conv0.modulation(ws[:, 0]).flatten(1)
            y = self.conv0(x, style0, next_style=style if fuse else None, **options)
            y = self.conv1(y, style, premodulated=fuse, gain=gain, **options)
            x = y + self.skip(x, self.resample, gain=gain, impl=impl) if self.residual else y
        if image is not None and self.up == 2:
            image = upsample2d(image, self.resample, impl=impl)
        if self.with_image:
            seen = self.torgb(x, ws[:, self.num_convs], impl=impl)
            seen = seen.float() if seen.dtype == torch.float16 else seen
            image = seen if image is None else image + seen
        return x, image

    def _laid_out(self, x: Tensor, impl: str) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and impl != "reference" else x


class Synthesis(nn.Module):
    """Style vectors [N, L, D] -> image [N, img_channels, R, R] with the features before it, from one pass."""

    def __init__(
        self,
        *,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        architecture: str = "skip",
        use_noise: bool = True,
    ) -> None:
        super().__init__()
        self.sizes = tuple(4 << i for i in range(img_resolution.bit_length() - 2))
        self.architecture = architecture
        channels = 0
        for size in self.sizes:
            before, channels = channels, min(channel_base // size, channel_max)
            block = Block(
                before,
                channels,
                w_dim=w_dim,
                size=size,
                img_channels=img_channels,
                last=size == img_resolution,
                architecture=architecture,
                clamp=conv_clamp,
                half=size >= max(img_resolution >> max(num_fp16_res - 1, 0), 8) and num_fp16_res > 0,
                use_noise=use_noise,
            )
            self.add_module(f"b{size}", block)
        self.num_ws = 2 * len(self.sizes)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Where there is an image: at every level of the skip architecture, else at the end alone."""
        return self.sizes if self.architecture == "skip" else self.sizes[-1:]

    def slots(self) -> Iterator[tuple[str, int]]:
        """Name of every part that can be updated, coarse to fine, with the index of the style vector it goes by.

        The residual path reads none; it goes by that of the block's first convolution.
        """
        first = 0
        for size in self.sizes:
            block = self.block(size)
            names = ["conv1"] if block.first else ["conv0", "conv1"]
            for i, name in enumerate(names):
                yield f"b{size}.{name}", first + i
            if block.residual:
                yield f"b{size}.skip", first
            first += block.num_convs
            if block.with_image:
                yield f"b{size}.torgb", first

    def block(self, size: int) -> Block:
        """The block of one resolution."""
        block = self.get_submodule(f"b{size}")
        assert isinstance(block, Block)
        return block

    def forward(
        self,
        ws: Tensor,  # [N, L, D]
        *,
        noise: str = "const",
        random: torch.Generator | None = None,
        resolution: int | None = None,
        impl: str = "auto",
    ) -> tuple[Tensor, Tensor]:
        """Image [N, img_channels, R, R], features [N, C, R, R]; `resolution` is one of `resolutions`."""
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for size in self.sizes:
            block = self.block(size)
            x, image = block(
                x, image, ws[:, first : first + block.num_convs + 1], noise=noise, random=random, impl=impl
            )
            first += block.num_convs
            if size == resolution:
                break
        assert x is not None and image is not None
        return image, x


def _normalised(x: Tensor) -> Tensor:
    """Rows of unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
