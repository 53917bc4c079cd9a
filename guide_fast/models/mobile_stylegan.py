"""MobileStyleGAN: the default generator (FFHQ 1024) in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.kernels import haar, modulated_conv2d, separable_conv2d
from guide_fast.models.generator import Rendering
from guide_fast.models.modulation import Modulation
from guide_fast.models.openvino_ir import IrGraph, read_ir

ASSET_NAME = "mobilestylegan-ffhq-1024"
SLOTS_PER_BLOCK = 3  # up, conv1, conv2


class StyledConv(nn.Module):
    """Style-modulated convolution (demodulation is folded into the weights), noise map, bias, leaky ReLU 0.2."""

    def __init__(self, w_dim: int, inputs: int, outputs: int, size: int, *, separable: bool) -> None:
        super().__init__()
        self.modulation = Modulation(w_dim, inputs, 1 / math.sqrt(inputs * 9))
        if separable:
            self.depthwise = nn.Parameter(torch.empty(inputs, 1, 3, 3))
            self.pointwise = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        else:
            self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.register_buffer("noise", torch.empty(1, 1, size, size))
        self.noise: Tensor
        self.separable = separable

    def forward(
        self,
        x: Tensor,  # [N, I, H, W]; with haar_style [N, 4I, H/2, W/2]
        w: Tensor,  # [N, D]
        *,
        noise: bool,
        impl: str,
        haar_style: Tensor | None = None,  # [N, 4I]
    ) -> Tensor:
        """[N, O, H, W]."""
        dtype = x.dtype
        style = self.modulation(w).flatten(1).to(dtype)
        added = self.noise.to(dtype) if noise else None
        if self.separable:
            return separable_conv2d(
                x,
                self.depthwise.to(dtype),
                self.pointwise.to(dtype),
                style,
                haar_style=None if haar_style is None else haar_style.to(dtype),
                noise=added,
                bias=self.bias.to(dtype),
                impl=impl,
            )
        return modulated_conv2d(
            x,
            self.weight.to(dtype),
            style,
            noise=added,
            bias=self.bias.to(dtype),
            demodulate=False,
            gain=1.0,
            impl=impl,
        )


class StyledHaar(nn.Module):
    """Style of an inverse Haar wavelet: [N, D] -> [N, 4C]; the convolution behind it applies both."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(w_dim, channels, 1.0)

    def forward(self, w: Tensor) -> Tensor:
        """[N, D] -> [N, 4C]."""
        return self.modulation(w).flatten(1)


class Block(nn.Module):
    """One resolution: wavelet up-sampling followed by two separable styled convolutions.

    `half_precision` computes in float16, on a CUDA device only; the weights stay as they are.
    """

    def __init__(self, w_dim: int, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.up = StyledHaar(w_dim, inputs)
        self.conv1 = StyledConv(w_dim, inputs // 4, outputs, size, separable=True)
        self.conv2 = StyledConv(w_dim, outputs, outputs, size, separable=True)
        self.half_precision = False

    def forward(self, x: Tensor, ws: Tensor, *, noise: bool, impl: str) -> Tensor:
        """[N, I, H, W], ws [N, 3, D] -> [N, O, 2H, 2W]."""
        x = x.to(torch.float16 if self.half_precision and x.is_cuda else self.conv1.bias.dtype)
        x = self.conv1(x, ws[:, 1], noise=noise, impl=impl, haar_style=self.up(ws[:, 0]))
        return self.conv2(x, ws[:, 2], noise=noise, impl=impl)


class ToImage(nn.Module):
    """Style-modulated 1x1 convolution to 12 wavelet channels, inverse wavelet to RGB."""

    def __init__(self, w_dim: int, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(w_dim, channels, 1 / math.sqrt(channels))
        self.weight = nn.Parameter(torch.empty(12, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(12))

    def forward(self, x: Tensor, w: Tensor, *, impl: str) -> Tensor:
        """[N, C, H, W] -> [N, 3, 2H, 2W]."""
        return wavelet_image(x, self.weight, self.bias, self.modulation(w).flatten(1), impl=impl)


def wavelet_image(
    x: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [12, C, 1, 1]
    bias: Tensor,  # [12]
    style: Tensor,  # [N, C]
    *,
    impl: str,
) -> Tensor:
    """RGB image [N, 3, 2H, 2W] of features scaled by `style`."""
    return haar(
        separable_conv2d(x.to(weight.dtype), None, weight, style, bias=bias, activation="linear", impl=impl), impl=impl
    )


class MobileStyleGAN(nn.Module):
    """MobileStyleGAN with W+ (one style vector a slot: first convolution, 3 a block, to_img).

    `w_mean` [D] is the mean mapping output over 4,096 samples of seed 0. `impl` picks the kernels ("reference": plain
    PyTorch). Raises UsageError on ws of another shape.
    Source: Belousov 2021 (arXiv 2104.04767); shapes read from the published OpenVINO graph.
    """

    cameras = None

    def __init__(self, name: str, *, z_dim: int, w_dim: int, channels: list[int], slope: float, gain: float) -> None:
        super().__init__()
        self.name, self.z_dim, self.w_dim = name, z_dim, w_dim
        self.impl, self.channels_last = "auto", True
        self.mapping_slope, self.mapping_gain = slope, gain
        self.mapping_layers = nn.ModuleList(nn.Linear(z_dim if i == 0 else w_dim, w_dim) for i in range(8))
        self.input = nn.Parameter(torch.empty(1, channels[0], 4, 4))
        self.conv1 = StyledConv(w_dim, channels[0], channels[0], 4, separable=False)
        self.blocks = nn.ModuleList(
            Block(w_dim, channels[i], channels[i + 1], 8 << i) for i in range(len(channels) - 1)
        )
        self.to_img = ToImage(w_dim, channels[-1])
        self.register_buffer("w_mean", torch.zeros(w_dim))
        self.heads = nn.ModuleDict()  # "256" -> LowResolutionHead, not part of the generator's weights
        self.num_ws = 2 + SLOTS_PER_BLOCK * len(self.blocks)
        self.img_resolution = 8 << len(self.blocks)
        slots = ["conv1", *(f"blocks.{i}.{part}" for i in range(len(self.blocks)) for part in ("up", "conv1", "conv2"))]
        self.layers = tuple(
            f"{slot}.{kind}"
            for slot in [*slots, "to_img"]
            for kind in (("modulation",) if slot.endswith(".up") else ("modulation", "convolution"))
        )
        self.w_mean: Tensor
        self.config: dict[str, Any] = {}  # what `from_tensors` was given
        self.lineage: tuple[str, ...] = ()  # sha256 of the deltas applied, in order

    @property
    def resolutions(self) -> tuple[int, ...]:
        """What `synthesis(resolution=...)` accepts, ascending."""
        return (*sorted(int(size) for size in self.heads), self.img_resolution)

    def mapping(
        self,
        z: Tensor,  # [N, Z]
        c: Tensor | None = None,
    ) -> Tensor:
        """Style vectors ws [N, L, D], the same one in every slot; this generator takes no conditioning."""
        if c is not None:
            raise UsageError(f"{self.name} takes no conditioning label; leave c out")
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"z has shape {tuple(z.shape)}; {self.name} takes [N, {self.z_dim}]")
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping_layers:
            x = F.leaky_relu(layer(x), self.mapping_slope) * self.mapping_gain
        return x[:, None].expand(-1, self.num_ws, -1)

    def synthesis(
        self,
        ws: Tensor,  # [N, L, D]
        c: Tensor | None = None,
        *,
        noise: str = "const",
        resolution: int | None = None,
    ) -> Rendering:
        """Image [N, 3, R, R] with the features before RGB, from one pass.

        `noise` is "const" (the maps baked into the weights) or "none". `resolution` below the native one needs a
        low-resolution head (`guide_fast.models.low_resolution`) and stops at the block it reads.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise UsageError(f"ws has shape {tuple(ws.shape)}; {self.name} takes [N, {self.num_ws}, {self.w_dim}]")
        if c is not None:
            raise UsageError(f"{self.name} takes no conditioning label; leave c out")
        if noise not in ("const", "none"):
            raise UsageError(f"noise={noise!r} is not known to {self.name}; choose 'const' or 'none'")
        resolution = resolution or self.img_resolution
        if resolution not in self.resolutions:
            known = ", ".join(map(str, self.resolutions))
            raise UsageError(f"{self.name} has no {resolution} px output; it renders at {known}")
        # half precision has no fast kernels on a CPU, so autocast would only round here
        with torch.autocast(ws.device.type, enabled=False):
            return self._synthesis(ws.to(self.input.dtype), noise == "const", resolution)

    def _synthesis(self, ws: Tensor, with_noise: bool, resolution: int) -> Rendering:
        x = self.conv1(self.input.repeat(len(ws), 1, 1, 1), ws[:, 0], noise=with_noise, impl=self.impl)
        if self.channels_last and self.impl != "reference":
            x = x.contiguous(memory_format=torch.channels_last)  # which every layer after keeps
        for i, block in enumerate(self.blocks):
            first = 1 + SLOTS_PER_BLOCK * i
            x = block(x, ws[:, first : first + SLOTS_PER_BLOCK], noise=with_noise, impl=self.impl)
            if resolution == 16 << i and resolution != self.img_resolution:
                image = self.heads[str(resolution)](x, ws, self.blocks[i + 1], impl=self.impl)
                return Rendering(image, x.to(image.dtype))
        image = self.to_img(x, ws[:, -1], impl=self.impl)
        return Rendering(image, x.to(image.dtype))

    @property
    def small_resolutions(self) -> tuple[int, ...]:
        """Resolutions for which a head can be fitted, ascending (`guide_fast.models.low_resolution`)."""
        return tuple(16 << i for i in range(len(self.blocks) - 1))

    def seen_layers(self, resolution: int) -> tuple[str, ...]:
        """The layers on which an image of `resolution` px depends, be its head attached or not.

        Raises UsageError where there can be no such image.
        """
        if resolution == self.img_resolution:
            return self.layers
        small = self.small_resolutions
        if resolution not in small:
            known = ", ".join(map(str, (*small, self.img_resolution)))
            raise UsageError(f"ltu.resolution = {resolution} is no output of {self.name}; choose one of {known}")
        last = f"blocks.{small.index(resolution) + 1}.up.modulation"  # with it the next block, or the head, reads
        return self.layers[: self.layers.index(last) + 1]

    def slot(self, layer: str) -> int:
        """Index of the style vector that `layer` reads."""
        slots = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in self.layers))
        return slots.index(self._part(layer))

    def layer_module(self, layer: str) -> nn.Module:
        """The module that holds the layer's parameters; its `modulation` makes the layer's style."""
        return self.get_submodule(self._part(layer))

    def layer_parameters(self, layer: str) -> dict[str, nn.Parameter]:
        """Full parameter name -> parameter of one entry of `layers`."""
        part, kind = self._part(layer), layer.rsplit(".", 1)[1]
        return {
            f"{part}.{name}": parameter
            for name, parameter in self.layer_module(layer).named_parameters()
            if name.startswith("modulation.") == (kind == "modulation")
        }

    def _part(self, layer: str) -> str:
        if layer not in self.layers:
            raise UsageError(f"{self.name} has no layer {layer!r}; `guide-fast doctor --layers` lists all of them")
        return layer.rsplit(".", 1)[0]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> MobileStyleGAN:
        """Build from `convert`'s output; raises IntegrityError when names or shapes do not fit."""
        arguments = {key: config[key] for key in ("name", "z_dim", "w_dim", "channels", "slope", "gain")}
        generator = cls(arguments.pop("name"), **arguments)
        try:
            generator.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise IntegrityError(
                f"the weights do not fit {config['name']}: {str(error).splitlines()[-1].strip()}"
            ) from None
        generator.config = dict(config)
        return generator.eval().requires_grad_(False)


def convert(
    files: Mapping[str, Path],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The two published OpenVINO graphs -> (state dict, config).

    The published order of wavelet channels (all low-pass first, then three bands for each) becomes interleaved bands,
    which is what `haar` reads; every tensor that produces or scales such channels is permuted once here.
    """
    mapping = read_ir(files["MappingNetwork.xml"], files["MappingNetwork.bin"])
    synthesis = read_ir(files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"])
    tensors, slope, gain = _mapping_tensors(mapping)
    tensors |= _synthesis_tensors(synthesis)
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    channels = [tensors["input"].shape[1], *(tensors[f"blocks.{i}.conv2.bias"].shape[0] for i in range(blocks))]
    config = {"name": ASSET_NAME, "z_dim": 512, "w_dim": 512, "channels": channels, "slope": slope, "gain": gain}
    generator = MobileStyleGAN.from_tensors({**tensors, "w_mean": torch.zeros(512)}, config)
    z = torch.randn(4096, 512, generator=torch.Generator().manual_seed(0))
    tensors["w_mean"] = generator.mapping(z)[:, 0].double().mean(0).float()
    return tensors, config


def _mapping_tensors(graph: IrGraph) -> tuple[dict[str, Tensor], float, float]:
    tensors = {}
    slopes, gains = set(), set()
    for i, matmul in enumerate(graph.by_type("MatMul")):
        tensors[f"mapping_layers.{i}.weight"] = _tensor(graph.constant_input(matmul))
        add = graph.consumers(matmul.id)
        bias = next(node for node in add if node.type == "Add")
        reshape = next(graph.nodes[i] for i in bias.inputs if graph.nodes[i].type == "Reshape")
        tensors[f"mapping_layers.{i}.bias"] = _tensor(graph.constants[reshape.inputs[0]])
        activation = graph.consumers(bias.id)[0]
        slopes.add(round(float(graph.constant_input(activation).item()), 6))
        gains.add(float(graph.constant_input(graph.consumers(activation.id)[0]).item()))
    if len(slopes) != 1 or len(gains) != 1:
        raise IntegrityError("the mapping network's layers differ in slope or gain; this is not the published graph")
    return tensors, slopes.pop(), gains.pop()


def _synthesis_tensors(graph: IrGraph) -> dict[str, Tensor]:
    tensors = {"input": _tensor(graph.constant_named("m.input.input"))}
    dense = [node for node in graph.by_type("Convolution") if graph.constant_input(node).shape[-1] == 3]
    pointwise = [node for node in graph.by_type("Convolution") if graph.constant_input(node).shape[-1] == 1]
    tensors["conv1.weight"] = _tensor(graph.constant_input(dense[0]))
    convolutions = {"conv1": dense[0]}
    for index, node in enumerate(pointwise[:-1]):  # the last one is to_img
        slot = f"blocks.{index // 2}.conv{index % 2 + 1}"
        tensors[f"{slot}.pointwise"] = _tensor(graph.constant_input(node))
        convolutions[slot] = node
    for slot, node in convolutions.items():
        published = "m." + slot.replace("blocks.", "layers.")
        noise = next(n for n in graph.consumers(node.id) if n.type == "Add")
        tensors[f"{slot}.noise"] = _tensor(graph.constant_input(noise))
        tensors[f"{slot}.bias"] = _tensor(graph.constant_named(f"{published}.bias")).flatten()
        if slot != "conv1":
            depthwise = _tensor(graph.constant_named(f"{published}.conv.weight_dw"))
            tensors[f"{slot}.depthwise"] = depthwise.reshape(-1, 1, 3, 3)
    blocks = len(pointwise) // 2
    modulations = {slot: f"m.{slot.replace('blocks.', 'layers.')}.conv.modulation" for slot in convolutions}
    modulations |= {f"blocks.{i}.up": f"m.layers.{i}.up.modulation" for i in range(blocks)}
    modulations["to_img"] = f"m.layers.{blocks - 1}.to_img.conv.modulation"
    for slot, published in modulations.items():
        tensors[f"{slot}.modulation.weight"] = _tensor(graph.constant_named(f"{published}.weight"))
        tensors[f"{slot}.modulation.bias"] = _tensor(graph.constant_named(f"{published}.bias")).flatten()
    tensors["to_img.weight"] = _tensor(graph.constant_named(f"m.layers.{blocks - 1}.to_img.conv.weight"))
    tensors["to_img.bias"] = _tensor(graph.constant_named(f"m.layers.{blocks - 1}.to_img.bias")).flatten()
    for i in range(blocks):  # what `up` of block i reads is made by the convolution before it
        producer = f"blocks.{i - 1}.conv2" if i else "conv1"
        weight = f"{producer}.pointwise" if i else "conv1.weight"
        # `conv1`'s noise is one map for all channels, so only these four carry the order
        for name in (weight, f"{producer}.bias", f"blocks.{i}.up.modulation.weight", f"blocks.{i}.up.modulation.bias"):
            tensors[name] = _interleaved(tensors[name])
    for name in ("to_img.weight", "to_img.bias"):
        tensors[name] = _interleaved(tensors[name])
    return tensors


def _interleaved(value: Tensor) -> Tensor:
    """Rows (ll of all, then lh, hl, hh of each) -> rows (ll, lh, hl, hh) of each."""
    count = len(value) // 4
    low, high = value[:count, None], value[count:].unflatten(0, (count, 3))
    return torch.cat((low, high), dim=1).flatten(0, 1).contiguous()


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.astype("float32"))
