"""StyleGAN2 as its PyTorch repositories publish it: settings from records, held against shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guide_fast.errors import IntegrityError, RefusedError, UsageError
from guide_fast.models.published._records import (
    Instance,
    Persistent,
    TensorRecord,
    child,
    module_tensors,
    plain,
    shown,
    state_of,
)
from guide_fast.models.published._settings import check_stylegan2

PUBLISHED_CHANNEL_BASE, PUBLISHED_CHANNEL_MAX = 32768, 512  # defaults of both repositories
FILTER = [1, 3, 3, 1]
_LARGEST = 1024  # px

Module = Persistent | Instance
Shapes = dict[str, tuple[int, ...]]


def refuse_stylegan3(names: Mapping[str, Any]) -> None:
    """Raise UsageError when tensor names are those of a StyleGAN3 synthesis network."""
    marks = ("synthesis.L0_", "synthesis.input.")
    if any(name.removeprefix("backbone.").startswith(marks) for name in names):
        raise UsageError(
            "the file is a StyleGAN3 generator (its layers are called L0_36_512 or alike), which guide-fast cannot "
            "run; give a StyleGAN2 or EG3D checkpoint"
        )


def stylegan2_config(generator: Module, name: str) -> dict[str, Any]:
    """The settings that the recorded `generator` was built with, as plain JSON.

    They come from what its constructors kept, never from a guess; `check_shapes` then holds them against the tensors.
    Raises IntegrityError for a setting that is missing or that its records contradict, RefusedError for one that
    guide-fast does not run.
    """
    mapping, synthesis = child(generator, "mapping"), child(generator, "synthesis")
    if mapping is None or synthesis is None:
        raise UsageError("the file's generator has no mapping or no synthesis network; give a StyleGAN2 checkpoint")
    resolution = _whole(synthesis, "img_resolution", 8, _LARGEST)
    if resolution & (resolution - 1):
        raise RefusedError(f"the generator makes {resolution} px images; powers of two from 8 to {_LARGEST} are known")
    blocks = [child(synthesis, f"b{r}") for r in block_resolutions(resolution)]
    present = [block for block in blocks if block is not None]
    if len(present) != len(blocks):
        raise IntegrityError(f"the generator lacks synthesis blocks up to {resolution} px; get the file again")
    layers = [layer for block in present for layer in (child(block, "conv0"), child(block, "conv1")) if layer]
    if len(layers) != 2 * len(blocks) - 1:
        raise IntegrityError("the generator lacks synthesis layers; get the file again")
    kept = state_of(synthesis).get("_init_kwargs")
    kept = kept if isinstance(kept, dict) else {}
    config = {
        "family": "stylegan2",
        "name": name,
        "z_dim": _whole(mapping, "z_dim", 0, 1 << 16),
        "c_dim": _whole(mapping, "c_dim", 0, 1 << 16),
        "w_dim": _whole(synthesis, "w_dim", 1, 1 << 16),
        "img_resolution": resolution,
        "img_channels": _whole(synthesis, "img_channels", 1, 1 << 12),
        "channel_base": plain(kept.get("channel_base", PUBLISHED_CHANNEL_BASE)),
        "channel_max": plain(kept.get("channel_max", PUBLISHED_CHANNEL_MAX)),
        "num_fp16_res": _half_blocks(present),
        "conv_clamp": plain(_common(layers, "conv_clamp")),
        "architecture": plain(_common(present, "architecture")),
        "resample_filter": FILTER,  # held against the stored filters by `check_filters`
        "use_noise": plain(_common(layers, "use_noise")),
        "activation": plain(_common(layers, "activation")),
        "mapping": _mapping(mapping),
    }
    check_stylegan2(config)
    return config


def _mapping(mapping: Module) -> dict[str, Any]:
    count = _whole(mapping, "num_layers", 1, 64)
    layers = [child(mapping, f"fc{i}") for i in range(count)]
    present = [layer for layer in layers if layer is not None]
    if len(present) != count:
        raise IntegrityError(f"the mapping network lacks some of its {count} layers; get the file again")
    tensors = module_tensors(mapping)
    embedding = tensors.get("embed.weight")
    beta = state_of(mapping).get("w_avg_beta")
    return {
        "num_layers": count,
        "embed_features": embedding.size[0] if embedding is not None and embedding.size else 0,
        "layer_features": _rows(tensors, "fc0.weight"),
        "activation": plain(_common(present, "activation")),
        "lr_multiplier": plain(_common(present, "bias_gain")),  # what the layers multiply their bias with
        "w_avg_beta": plain(beta),
    }


def block_resolutions(resolution: int) -> list[int]:
    """4, 8, ... up to `resolution`."""
    return [1 << i for i in range(2, resolution.bit_length())]


def stylegan2_shapes(config: Mapping[str, Any]) -> Shapes:
    """Name -> shape of every tensor that a generator with these settings has."""
    shapes: Shapes = {}
    z, c, w, mapping = config["z_dim"], config["c_dim"], config["w_dim"], config["mapping"]
    embedded = mapping["embed_features"] if c else 0
    if c:
        shapes |= {"mapping.embed.weight": (embedded, c), "mapping.embed.bias": (embedded,)}
    widths = [z + embedded] + [mapping["layer_features"]] * (mapping["num_layers"] - 1) + [w]
    for i in range(mapping["num_layers"]):
        shapes |= {f"mapping.fc{i}.weight": (widths[i + 1], widths[i]), f"mapping.fc{i}.bias": (widths[i + 1],)}
    shapes["mapping.w_avg"] = (w,)
    before = 0
    for r in block_resolutions(config["img_resolution"]):
        channels = min(config["channel_base"] // r, config["channel_max"])
        block = f"synthesis.b{r}"
        shapes[f"{block}.resample_filter"] = (4, 4)
        last = r == config["img_resolution"]
        shapes |= block_shapes(block, config, resolution=r, inputs=before, outputs=channels, last=last)
        before = channels
    return shapes


def block_shapes(
    block: str, config: Mapping[str, Any], *, resolution: int, inputs: int, outputs: int, last: bool
) -> Shapes:
    """Name -> shape of one synthesis block's tensors; `inputs` 0 stands for the learned constant."""
    w, colours = config["w_dim"], config["img_channels"]
    shapes: Shapes = {}
    if inputs == 0:
        shapes[f"{block}.const"] = (outputs, resolution, resolution)
    for layer, count in (("conv0", inputs), ("conv1", outputs)):
        if count:
            shapes |= _layer_shapes(f"{block}.{layer}", w, count, outputs, 3)
            shapes[f"{block}.{layer}.resample_filter"] = (4, 4)
            if config["use_noise"]:
                shapes |= {f"{block}.{layer}.noise_const": (resolution,) * 2, f"{block}.{layer}.noise_strength": ()}
    if last or config["architecture"] == "skip":
        shapes |= _layer_shapes(f"{block}.torgb", w, outputs, colours, 1)
    if inputs and config["architecture"] == "resnet":
        shapes |= {f"{block}.skip.weight": (outputs, inputs, 1, 1), f"{block}.skip.resample_filter": (4, 4)}
    return shapes


def _layer_shapes(layer: str, w: int, inputs: int, outputs: int, size: int) -> Shapes:
    return {
        f"{layer}.weight": (outputs, inputs, size, size),
        f"{layer}.bias": (outputs,),
        f"{layer}.affine.weight": (inputs, w),
        f"{layer}.affine.bias": (inputs,),
    }


def check_shapes(found: Mapping[str, tuple[int, ...]], wanted: Shapes) -> None:
    """Raise IntegrityError naming the first tensor that is missing, unknown or of another shape."""
    for name, shape in wanted.items():
        if name not in found:
            raise IntegrityError(f"the checkpoint lacks {name}, which its settings ask for; get the file again")
        if found[name] != shape:
            raise IntegrityError(
                f"{name} has shape {list(found[name])} where the settings ask for {list(shape)}; get the file again"
            )
    unknown = sorted(found.keys() - wanted.keys())
    if unknown:
        raise IntegrityError(f"the checkpoint holds {unknown[0][:120]!r}, which its settings do not ask for")


def check_filters(tensors: Mapping[str, Any]) -> None:
    """Raise RefusedError when a stored resampling filter is not [1, 3, 3, 1]'s."""
    import torch

    taps = torch.tensor(FILTER, dtype=torch.float32)
    wanted = torch.outer(taps, taps) / 64
    for name, value in tensors.items():
        if name.endswith("resample_filter") and not torch.allclose(value.float(), wanted, atol=1e-6):
            raise RefusedError(f"{name} is not the published filter {FILTER}; guide-fast runs no other")


def _half_blocks(blocks: list[Module]) -> int:
    flags = [state_of(block).get("use_fp16") for block in blocks]
    count = sum(flag is True for flag in flags)
    if any(type(flag) is not bool for flag in flags) or flags != [False] * (len(flags) - count) + [True] * count:
        raise IntegrityError("the blocks' use_fp16 is missing or set for other than the last ones; get the file again")
    return count


def _common(modules: list[Module], attribute: str) -> Any:
    """The value that all `modules` have; raises IntegrityError where they differ or have none."""
    values = [state_of(module).get(attribute, _common) for module in modules]
    if values[0] is _common or not isinstance(values[0], str | int | float | type(None)):
        raise IntegrityError(f"the checkpoint's records lack {attribute}; get the file again")
    if any(type(value) is not type(values[0]) or value != values[0] for value in values):
        raise RefusedError(f"the generator's layers differ in {attribute}, which no published checkpoint's do")
    return values[0]


def _whole(module: Module, attribute: str, least: int, most: int) -> int:
    value = state_of(module).get(attribute)
    if type(value) is not int or not least <= value <= most:
        raise IntegrityError(f"the checkpoint's {attribute} is {shown(value)}; whole numbers {least}..{most} are known")
    return value


def _rows(tensors: Mapping[str, TensorRecord], name: str) -> int:
    record = tensors.get(name)
    if record is None or not record.size:
        raise IntegrityError(f"the checkpoint lacks {name}; get the file again")
    return record.size[0]
