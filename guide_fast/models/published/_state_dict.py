"""State dicts with the names of the StyleGAN2-ADA repository: settings from shapes as far as shapes tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guide_fast.errors import IntegrityError, RefusedError, UsageError
from guide_fast.models.published._records import plain
from guide_fast.models.published._settings import check_stylegan2
from guide_fast.models.published._stylegan2 import FILTER, block_resolutions

Sizes = Mapping[str, tuple[int, ...]]
_PUBLISHED_BETA = 0.998  # of training's moving average; no image depends on it
_MOST_LAYERS = 64


def is_stylegan2(names: Mapping[str, Any]) -> bool:
    """Whether the names are those of a StyleGAN2-ADA generator."""
    return "synthesis.b4.const" in names and "mapping.fc0.weight" in names


def state_dict_config(sizes: Sizes, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings that the shapes tell, with what they cannot tell taken from `given`.

    Raises UsageError naming what `given` has to say, IntegrityError where a tensor is missing.
    """
    unseen = _unseen(given)
    resolution = max((r for r in block_resolutions(1024) if f"synthesis.b{r}.conv1.weight" in sizes), default=0)
    if resolution < 8:
        raise IntegrityError("the state dict has no synthesis block of 8 px or more; get the file again")
    layers = next(i for i in range(_MOST_LAYERS + 1) if f"mapping.fc{i}.weight" not in sizes or i == _MOST_LAYERS)
    c_dim = _size(sizes, "mapping.embed.weight", 1) if "mapping.embed.weight" in sizes else 0
    embedded = _size(sizes, "mapping.embed.weight", 0) if c_dim else 0
    widths = {r: _size(sizes, f"synthesis.b{r}.conv1.weight", 0) for r in block_resolutions(resolution)}
    colours = _size(sizes, f"synthesis.b{resolution}.torgb.weight", 0)
    if "synthesis.b8.skip.weight" in sizes:
        architecture = "resnet"
    else:
        architecture = "skip" if "synthesis.b4.torgb.weight" in sizes else "orig"
    config = {
        "family": "stylegan2",
        "name": name,
        "z_dim": _size(sizes, "mapping.fc0.weight", 1) - embedded,
        "c_dim": c_dim,
        "w_dim": _size(sizes, f"mapping.fc{layers - 1}.weight", 0),
        "img_resolution": resolution,
        "img_channels": colours,
        # any base that gives these widths gives the same network: the shapes are held against it afterwards
        "channel_base": widths[resolution] * resolution,
        "channel_max": widths[4],
        "num_fp16_res": unseen["num_fp16_res"],
        "conv_clamp": unseen["conv_clamp"],
        "architecture": architecture,
        "resample_filter": FILTER,
        "use_noise": "synthesis.b4.conv1.noise_strength" in sizes,
        "activation": "lrelu",
        "mapping": {
            "num_layers": layers,
            "embed_features": embedded,
            "layer_features": _size(sizes, "mapping.fc0.weight", 0),
            "activation": "lrelu",
            "lr_multiplier": unseen["lr_multiplier"],
            "w_avg_beta": _PUBLISHED_BETA,
        },
    }
    check_stylegan2(config)
    return config


def _unseen(given: Mapping[str, Any]) -> dict[str, Any]:
    mapping = given.get("mapping", {})
    if not isinstance(mapping, dict):
        raise UsageError("the settings beside the state dict have a 'mapping' that is no object; see the README")
    wanted = [("num_fp16_res", given), ("conv_clamp", given), ("lr_multiplier", mapping)]
    missing = [key for key, values in wanted if key not in values]
    if missing:
        raise UsageError(
            f"a state dict does not tell {', '.join(missing)}; write that into a JSON file of the same name beside it, "
            "as in "
            '{"num_fp16_res": 0, "conv_clamp": null, "mapping": {"lr_multiplier": 0.01}}'
        )
    return {key: plain(values[key]) for key, values in wanted}


def _size(sizes: Sizes, name: str, axis: int) -> int:
    shape = sizes.get(name)
    if shape is None or len(shape) <= axis or shape[axis] < 1:
        raise IntegrityError(f"the state dict lacks {name} or it has the wrong shape; get the file again")
    if shape[axis] > 1 << 16:
        raise RefusedError(f"{name} has {shape[axis]:,} rows; no published generator does")
    return shape[axis]
