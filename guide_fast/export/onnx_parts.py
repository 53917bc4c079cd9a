"""A generator of any family as the parts that are exported, beside what PyTorch makes of the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from guide_fast.errors import UsageError
from guide_fast.export import onnx_eg3d, onnx_mobile_stylegan, onnx_stylegan2
from guide_fast.export.onnx_graph import PartModule
from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_renderer import Renderer
from guide_fast.models import loading
from guide_fast.models.cameras import LABEL
from guide_fast.models.eg3d import EG3D
from guide_fast.models.generator import Generator
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.stylegan2 import StyleGAN2

NOISES = ("const", "none")
_PSI = (1.0, 0.7, 0.5)  # of the examples, in turn


def family(generator: Generator) -> str:
    """Its name in engine.json; raises UsageError for a generator that cannot be exported."""
    for name, kind in loading.FAMILIES.items():
        if isinstance(generator, kind):
            return name
    raise UsageError(f"{generator.name} is a {type(generator).__name__}, which no exporter knows")


def check_noise(noise: str) -> None:
    """Raise UsageError for noise that no graph can have."""
    if noise not in NOISES:
        raise UsageError(f"noise={noise!r} cannot be exported; choose one of {', '.join(NOISES)}")


def weights_of(generator: Generator) -> dict[str, Tensor]:
    """Parameters with buffers, in the order of rows; a low-resolution head is no part of a generator."""
    state = generator.state_dict().items()
    return {name: v.detach().cpu().contiguous() for name, v in state if not name.startswith("heads.")}


def parts_of(generator: Generator, *, half: bool, noise: str) -> list[PartModule]:
    """The parts in the order in which an image passes them, with inputs to trace them by, a batch of two.

    `noise` is "const" (the maps of the checkpoint are baked in) or "none".
    """
    check_noise(noise)
    weights = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=half)
    modules = _MODULES[family(generator)](generator, weights, noise == "const")
    sides = _sides(generator)
    return [
        PartModule(name, module, {port: torch.zeros(2, *sides[port]) for port in inputs}, outputs)
        for name, module, inputs, outputs in modules
    ]


@torch.inference_mode()
def examples(generator: Generator, *, batch: int, seed: int, noise: str) -> dict[str, Tensor]:
    """Inputs of a seed with what `generator` makes of them, under the names of the parts' inputs, outputs."""
    random = torch.Generator().manual_seed(seed)
    psi = torch.tensor([_PSI[i % len(_PSI)] for i in range(batch)])
    values = {"z": torch.randn(batch, generator.z_dim, generator=random), "psi": psi}
    device, mean = generator.w_mean.device, generator.w_mean
    if (c := _label(generator, batch, random)) is not None:
        values["c"] = c
    w = generator.mapping(values["z"].to(device), None if c is None else c.to(device))
    ws = mean + psi.to(device)[:, None, None] * (w - mean)
    camera = None
    if isinstance(generator, EG3D):
        camera = values["camera"] = generator.cameras.draw(random, batch)
    seen = generator.synthesis(ws, None if camera is None else camera.to(device), noise=noise)
    values |= {"ws": ws, "image": seen.image}
    if seen.planes is not None and seen.depth is not None:
        values |= {"planes": seen.planes, "features": seen.features, "depth": seen.depth}
    return {name: value.detach().float().cpu().contiguous().clone() for name, value in values.items()}


def _sides(generator: Generator) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs behind the batch."""
    sides = {"z": (generator.z_dim,), "psi": (), "ws": (generator.num_ws, generator.w_dim)}
    sides["c"] = (getattr(generator, "c_dim", 0),)
    if isinstance(generator, EG3D):
        decoder, raw = generator.config["decoder"], generator.neural_rendering_resolution
        side = generator.backbone.synthesis.sizes[-1]
        sides |= {"camera": (LABEL,), "planes": (3 * decoder["features"], side, side)}
        sides["features"] = (decoder["outputs"], raw, raw)
    return sides


_Modules = Sequence[tuple[str, nn.Module, Sequence[str], Sequence[str]]]  # part, module, inputs, outputs


def _mobile_stylegan(generator: MobileStyleGAN, weights: Weights, noise: bool) -> _Modules:
    return (
        ("mapping", onnx_mobile_stylegan.Mapping(generator, weights), ("z", "psi"), ("ws",)),
        ("synthesis", onnx_mobile_stylegan.Synthesis(generator, weights, noise=noise), ("ws",), ("image",)),
    )


def _stylegan2(generator: StyleGAN2, weights: Weights, noise: bool) -> _Modules:
    network, slots = generator.mapping_network, generator.num_ws
    mapping = onnx_stylegan2.Mapping(network, weights, "mapping_network", slots=slots)
    synthesis = onnx_stylegan2.Synthesis(generator.synthesis_network, weights, "synthesis_network", noise=noise)
    return (
        ("mapping", mapping, ("z", "psi", "c") if generator.c_dim else ("z", "psi"), ("ws",)),
        ("synthesis", synthesis, ("ws",), ("image",)),
    )


def _eg3d(generator: EG3D, weights: Weights, noise: bool) -> _Modules:
    backbone, slots = generator.backbone, generator.num_ws
    size = generator.neural_rendering_resolution
    mapping = onnx_stylegan2.Mapping(
        backbone.mapping, weights, "backbone.mapping", slots=slots, c_scale=generator.c_scale
    )
    planes = onnx_stylegan2.Synthesis(backbone.synthesis, weights, "backbone.synthesis", noise=noise)
    renderer = Renderer(generator.renderer, generator.decoder, weights, "decoder", resolution=size)
    enlarging = onnx_eg3d.Enlarging(generator.superresolution, weights, "superresolution", resolution=size)
    return (
        ("mapping", mapping, ("z", "psi", "c"), ("ws",)),
        ("planes", planes, ("ws",), ("planes",)),
        ("renderer", renderer, ("planes", "camera"), ("features", "depth")),
        ("super_resolution", enlarging, ("features", "ws"), ("image",)),
    )


def _label(generator: Generator, batch: int, random: torch.Generator) -> Tensor | None:
    """What latents of the examples are mapped with: a class each, a camera each, or nothing."""
    if isinstance(generator, EG3D):
        return generator.cameras.draw(random, batch)
    if isinstance(generator, StyleGAN2) and generator.c_dim:
        return torch.nn.functional.one_hot(torch.arange(batch) % generator.c_dim, generator.c_dim).float()
    return None


_MODULES: Mapping[str, Callable[..., _Modules]] = {
    "mobilestylegan": _mobile_stylegan,
    "stylegan2": _stylegan2,
    "eg3d": _eg3d,
}
