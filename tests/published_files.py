"""Checkpoint files made for tests: pickles from opcodes, persistent generators, torch files."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def pickled(body: bytes) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + body + b"."


class _Named:
    """Pickled as the global `module.name`, which need not exist."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Persistent:
    def __init__(self, class_name: str, state: dict[str, Any], source: str = "raise SystemExit('executed')") -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}


class Called:
    """Pickled as the call of a global that need not exist; the arguments can be changed."""

    def __init__(self, module: str, name: str, arguments: list[Any]) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what the publishing repositories write without having their modules."""

    def save(self, obj: Any, *rest: Any, **options: Any) -> None:
        if isinstance(obj, _Named):
            self.write(named(obj.module, obj.name))
        elif isinstance(obj, _Persistent):
            self.write(named("torch_utils.persistence", "_reconstruct_persistent_obj"))
            super().save((obj.meta,))
            self.write(b"R")
        elif isinstance(obj, Called):
            self.write(named(obj.module, obj.name))
            super().save(tuple(obj.arguments))
            self.write(b"R")
        else:
            super().save(obj, *rest, **options)


def write_pickle(value: Any, path: Path) -> Path:
    """`value`, in which `module(...)` stands for persistent modules, as a pickle."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=4).dump(value)
    path.write_bytes(stream.getvalue())
    return path


def spelled(tensor: Tensor) -> Called:
    """The tensor as the calls that a pickle holds for it."""
    storage = tensor.contiguous()._typed_storage()
    data = Called("torch.storage", "_load_from_bytes", [storage.__reduce__()[1][0]])
    arguments = [data, 0, tuple(tensor.shape), tensor.contiguous().stride(), False, OrderedDict()]
    return Called("torch._utils", "_rebuild_tensor_v2", arguments)


def module(
    class_name: str, tensors: dict[str, Tensor] | None = None, children: Any = None, **state: Any
) -> _Persistent:
    """A persistent torch module."""
    attributes = {"training": False, "_parameters": dict(tensors or {}), "_buffers": {}, "_modules": children or {}}
    return _Persistent(class_name, attributes | state)


_TAPS = torch.tensor([1.0, 3, 3, 1])
KERNEL = torch.outer(_TAPS, _TAPS) / 64


def _dense(rng: torch.Generator, rows: int, columns: int, gain: float = 1.0) -> _Persistent:
    tensors = {"weight": torch.randn(rows, columns, generator=rng), "bias": torch.randn(rows, generator=rng)}
    sizes = {"in_features": columns, "out_features": rows}
    return module("FullyConnectedLayer", tensors, activation="lrelu", bias_gain=gain, **sizes)


def _layer(rng: torch.Generator, sizes: tuple[int, int, int], w: int, pixels: int = 0) -> _Persistent:
    """A styled convolution of (inputs, outputs, kernel size), a colour layer where `pixels` is 0."""
    inputs, outputs, size = sizes
    tensors = {
        "weight": torch.randn(outputs, inputs, size, size, generator=rng),
        "bias": torch.randn(outputs, generator=rng),
    }
    if pixels:
        noise = torch.randn(pixels, pixels, generator=rng)
        tensors |= {"noise_strength": torch.tensor(0.1), "noise_const": noise, "resample_filter": KERNEL}
    children = {"affine": _dense(rng, inputs, w)}
    kind = "SynthesisLayer" if pixels else "ToRGBLayer"
    return module(kind, tensors, children, use_noise=True, activation="lrelu", conv_clamp=256)


def _block(
    rng: torch.Generator, inputs: int, outputs: int, *, w: int, pixels: int, colours: int, half: bool
) -> _Persistent:
    children = {
        "conv1": _layer(rng, (outputs, outputs, 3), w, pixels),
        "torgb": _layer(rng, (outputs, colours, 1), w),
    }
    tensors = {"resample_filter": KERNEL}
    if inputs:
        children["conv0"] = _layer(rng, (inputs, outputs, 3), w, pixels)
    else:
        tensors["const"] = torch.randn(outputs, 4, 4, generator=rng)
    return module("SynthesisBlock", tensors, children, architecture="skip", use_fp16=half)


def stylegan2_module(
    *, resolution: int = 16, base: int = 128, most: int = 8, w: int = 8, c: int = 0, half: int = 0, colours: int = 3
) -> _Persistent:
    """A persistent StyleGAN2 generator (skip architecture, two mapping layers) with random weights."""
    rng = torch.Generator().manual_seed(resolution)
    blocks, before, count = {}, 0, resolution.bit_length() - 2
    for i in range(count):
        pixels = 4 << i
        width = min(base // pixels, most)
        options = {"w": w, "pixels": pixels, "colours": colours, "half": i >= count - half}
        blocks[f"b{pixels}"] = _block(rng, before, width, **options)
        before = width
    sizes = {"w_dim": w, "img_resolution": resolution, "img_channels": colours}
    kept = {"channel_base": base, "channel_max": most}
    synthesis = module("SynthesisNetwork", {}, blocks, _init_kwargs=kept, **sizes)
    layers = {"fc0": _dense(rng, w, 2 * w if c else w, 0.01), "fc1": _dense(rng, w, w, 0.01)}
    if c:
        layers["embed"] = _dense(rng, w, c)
    options = {"z_dim": w, "c_dim": c, "num_layers": 2, "w_avg_beta": 0.998}
    mapping = module("MappingNetwork", {"w_avg": torch.randn(w, generator=rng)}, layers, **options)
    return module("Generator", {}, {"synthesis": synthesis, "mapping": mapping}, z_dim=w, **sizes)


RENDERING = {
    "depth_resolution": 4,
    "depth_resolution_importance": 4,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "clamp_mode": "softplus",
    "superresolution_noise_mode": "none",
    "avg_camera_pivot": [0, 0, 0.2],
}


def eg3d_module(kind: str = "SuperresolutionHybrid8XDC", *, w: int = 8, features: int = 2) -> _Persistent:
    """A persistent EG3D generator of 16 px with random weights."""
    rng = torch.Generator().manual_seed(5)
    blocks = {}
    for name, inputs, outputs, pixels in (("block0", features, 6, 8), ("block1", 6, 4, 16)):
        blocks[name] = _block(rng, inputs, outputs, w=w, pixels=pixels, colours=3, half=False)
    kept = {"channels": features, "img_resolution": 16, "sr_num_fp16_res": 0, "sr_antialias": True}
    net = module("Sequential", {}, {"0": _dense(rng, 8, features), "2": _dense(rng, features + 1, 8)})
    children = {
        "backbone": stylegan2_module(resolution=8, base=32, most=4, w=w, c=25, colours=3 * features),
        "superresolution": module(kind, {}, blocks, _init_kwargs=kept),
        "decoder": module("OSGDecoder", {}, {"net": net}),
    }
    options = {"neural_rendering_resolution": 4, "rendering_kwargs": copy.deepcopy(RENDERING)}
    return module("TriPlaneGenerator", {}, children, img_resolution=16, **options)


def rosinality(rule: Path, mean: Tensor) -> dict[str, Any]:
    """The rosinality checkpoint that `rule` (fixtures/rosinality_64.keys.json) describes."""
    said = json.loads(rule.read_text(encoding="utf-8"))
    state: OrderedDict[str, Tensor] = OrderedDict()
    for i, (name, shape, how) in enumerate(said["keys"]):
        if how == "kernel":
            state[name] = torch.tensor(said["kernels"][name])
        else:
            offset, scale = how.removesuffix("*randn").split("+") if "+" in how else ("0", how.removesuffix("*randn"))
            state[name] = float(offset) + float(scale) * torch.randn(shape, generator=torch.Generator().manual_seed(i))
    return {"g_ema": state, "latent_avg": mean}


def small_rosinality(w: int = 4, channels: int = 3) -> dict[str, Any]:
    """A rosinality checkpoint of 8 px."""
    rng = torch.Generator().manual_seed(3)
    kernel = KERNEL * 4

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    state: OrderedDict[str, Tensor] = OrderedDict({"input.input": randn(1, channels, 4, 4)})
    for i in (1, 2):
        state |= {f"style.{i}.weight": randn(w, w), f"style.{i}.bias": randn(w)}
    for name in ("conv1", "convs.0", "convs.1"):
        state |= {
            f"{name}.conv.weight": randn(1, channels, channels, 3, 3),
            f"{name}.conv.modulation.weight": randn(channels, w),
            f"{name}.conv.modulation.bias": randn(channels),
            f"{name}.noise.weight": randn(1),
            f"{name}.activate.bias": randn(channels),
        }
    for name in ("to_rgb1", "to_rgbs.0"):
        state |= {
            f"{name}.conv.weight": randn(1, 3, channels, 1, 1),
            f"{name}.conv.modulation.weight": randn(channels, w),
            f"{name}.conv.modulation.bias": randn(channels),
            f"{name}.bias": randn(1, 3, 1, 1),
        }
    state |= {"convs.0.conv.blur.kernel": kernel, "to_rgbs.0.upsample.kernel": kernel}
    for i, pixels in enumerate((4, 8, 8)):
        state[f"noises.noise_{i}"] = randn(1, 1, pixels, pixels)
    return {"g_ema": state, "latent_avg": randn(w)}


def saved(value: Any, path: Path, *, zipped: bool = True) -> Path:
    """`value` in a torch file, of the older form where `zipped` is False."""
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path
