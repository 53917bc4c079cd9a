"""modulated_conv2d on the layers of StyleGAN2 at 256 px, at 1024 px, of EG3D at 512 px."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.baselines.dense_conv import dense_conv
from guide_fast.bench.baselines.grouped_conv import grouped_conv
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal, average_speedup, worst_against_best

OP = "modulated_conv2d"
BATCHES = (1, 8, 5)  # the order in which a short budget is spent
CHANNEL_BASE, MOST_CHANNELS = 32768, 512
GROUPED, DENSE = "grouped convolution", "cuDNN + eager"

GOALS = (
    Goal("forward at least 1.5x cuDNN + eager, average over the shapes", 1.5, average_speedup(FORWARD, DENSE)),
    Goal("forward never below 0.95x the best of the others", 0.95, worst_against_best(FORWARD)),
)


@dataclass(frozen=True)
class Layer:
    """One convolution; `size` is that of its input."""

    size: int
    channels: int
    out: int
    up: int = 1
    kernel: int = 3
    demodulate: bool = True

    @property
    def name(self) -> str:
        """Readable, unique."""
        kind = f"{self.kernel}x{self.kernel}{' up 2' if self.up == 2 else ''}"
        return f"{self.size} px, {self.channels} to {self.out}, {kind}"


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """All layers, batch by batch, then two in tf32."""
    if smoke:
        for layer in (Layer(5, 8, 12), Layer(4, 8, 6, up=2), Layer(6, 8, 3, kernel=1, demodulate=False)):
            yield _case(layer, ("smoke",), 2, torch.float32)
        return
    models: dict[Layer, list[str]] = {}
    for model, layers in (
        ("StyleGAN2-256", stylegan2(256)),
        ("StyleGAN2-1024", stylegan2(1024)),
        ("EG3D-512", eg3d()),
    ):
        for layer in layers:
            models.setdefault(layer, []).append(model)
    largest_first = sorted(models, key=lambda layer: -layer.size * layer.channels)
    for batch in BATCHES:
        for layer in largest_first:
            yield _case(layer, tuple(models[layer]), batch, torch.float16)
        if batch == 1:
            for layer in (Layer(64, 512, 512), Layer(256, 128, 128)):
                yield _case(layer, tuple(models[layer]), batch, torch.float32, tf32=True)


def stylegan2(resolution: int, image_channels: int = 3, *, channel_base: int = CHANNEL_BASE) -> Iterator[Layer]:
    """Every layer of a synthesis network with skips; of its layers to RGB the last, the largest."""

    def channels(size: int) -> int:
        return min(channel_base // size, MOST_CHANNELS)

    yield Layer(4, channels(4), channels(4))
    size = 8
    while size <= resolution:
        yield Layer(size // 2, channels(size // 2), channels(size), up=2)
        yield Layer(size, channels(size), channels(size))
        size *= 2
    yield Layer(resolution, channels(resolution), image_channels, kernel=1, demodulate=False)


def eg3d() -> Iterator[Layer]:
    """The backbone of 96 plane channels, then the super-resolution 8XDC."""
    yield from stylegan2(256, image_channels=96)
    yield Layer(128, 32, 256, up=2)
    yield Layer(256, 256, 256)
    yield Layer(256, 256, 128, up=2)
    yield Layer(512, 128, 128)
    yield Layer(512, 128, 3, kernel=1, demodulate=False)


def _case(layer: Layer, models: tuple[str, ...], batch: int, dtype: torch.dtype, *, tf32: bool = False) -> Case:
    out_size = layer.up * layer.size
    flops = 2.0 * batch * layer.size**2 * layer.channels * layer.out * layer.kernel**2
    x, y = batch * layer.channels * layer.size**2, batch * layer.out * out_size**2
    noise = batch * out_size**2 if layer.demodulate else 0
    elements = x + y + layer.out * layer.channels * layer.kernel**2 + noise
    moved = float(elements * dtype.itemsize)
    shape = {"batch": batch, "size": layer.size, "in": layer.channels, "out": layer.out}
    shape |= {"kernel": layer.kernel, "up": layer.up}
    # backward: reads gy, y, x, the weight, writes two gradients; two more products
    works = (Work(FORWARD, flops, moved), Work(BOTH, 3 * flops, 3 * moved))
    name = f"{layer.name}, batch {batch}{', tf32' if tf32 else ''}"
    return Case(OP, name, models, shape, dtype, works, partial(_build, layer, batch, dtype), tf32)


def _build(layer: Layer, batch: int, dtype: torch.dtype, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(layer.size, device), device=device)
    out_size = layer.up * layer.size
    nhwc = torch.channels_last
    x = random(batch, layer.channels, layer.size, layer.size).to(dtype).contiguous(memory_format=nhwc)
    fan_in = layer.channels * layer.kernel**2
    weight = random(layer.out, layer.channels, layer.kernel, layer.kernel) / fan_in**0.5
    weight = weight.to(dtype).contiguous(memory_format=nhwc)
    style = (1 + 0.3 * random(batch, layer.channels)).to(dtype)
    bias = (0.1 * random(layer.out)).to(dtype)
    inputs = [x, weight, style, bias]
    if layer.demodulate:
        inputs.append((0.1 * random(batch, 1, out_size, out_size)).to(dtype))

    def ours(
        x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, noise: Tensor | None = None, *, impl: str
    ) -> Tensor:
        activation = "lrelu" if layer.demodulate else "linear"
        return kernels.modulated_conv2d(
            x,
            weight,
            style,
            noise=noise,
            bias=bias,
            up=layer.up,
            demodulate=layer.demodulate,
            activation=activation,
            impl=impl,
        )

    def other(formulation: Callable[..., Tensor], **settings: bool) -> Callable[..., Tensor]:
        def call(x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, noise: Tensor | None = None) -> Tensor:
            settings_of_layer = {"up": layer.up, "demodulate": layer.demodulate, "lrelu": layer.demodulate}
            return formulation(x, weight, style, noise, bias, **settings_of_layer, **settings)

        return call

    return Problem(
        tuple(inputs),
        ours,
        partial(ours, impl="reference"),
        {GROUPED: other(grouped_conv), DENSE: other(dense_conv)},
        {DENSE: other(dense_conv, slices=True)},
        trained=(0, 1, 2, 3),
    )
