"""What settings of a generator may be, whatever file they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from guide_fast.errors import IntegrityError, RefusedError
from guide_fast.models.published._records import shown

_WIDEST = 1 << 16  # features, channels, latent sizes
_LARGEST = 1024  # px
_LONGEST_NAME = 255
_RENDERING = ("depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp", "clamp_mode")
# key -> least, most
_STYLEGAN2 = {
    "z_dim": (0, _WIDEST),
    "c_dim": (0, _WIDEST),
    "w_dim": (1, _WIDEST),
    "img_resolution": (8, _LARGEST),
    "img_channels": (1, _WIDEST),
    "channel_base": (1, 1 << 24),
    "channel_max": (1, _WIDEST),
    "num_fp16_res": (0, 9),
}
_MAPPING = {"num_layers": (1, 64), "embed_features": (0, _WIDEST), "layer_features": (1, _WIDEST)}
_SUPER = {
    "channels": (1, _WIDEST),
    "img_resolution": (8, _LARGEST),
    "sr_num_fp16_res": (0, 16),
    "channel_base": (1, 1 << 24),
    "channel_max": (1, _WIDEST),
}
_SAMPLES = {"depth_resolution": (3, 4096), "depth_resolution_importance": (0, 4096)}  # a ray
_SWITCHES = ("c_gen_conditioning_zero", "disparity_space_sampling", "white_back")
_DECODER = {"features": (1, _WIDEST), "outputs": (1, _WIDEST), "hidden": (1, _WIDEST)}


def check_stylegan2(config: Mapping[str, Any]) -> None:
    """Raise IntegrityError for a setting that is missing or out of range, RefusedError for one of no known network."""
    _name(config)
    _whole(config, _STYLEGAN2)
    mapping = _object(config, "mapping")
    _whole(mapping, _MAPPING)
    resolution, clamp, beta = config["img_resolution"], config.get("conv_clamp"), mapping.get("w_avg_beta")
    if resolution & (resolution - 1):
        raise RefusedError(f"the generator makes {resolution} px images; powers of two from 8 to {_LARGEST} are known")
    if config["num_fp16_res"] > resolution.bit_length() - 3:
        raise IntegrityError(f"num_fp16_res is {config['num_fp16_res']}, more than {resolution} px have blocks")
    if clamp is not None and not (_is_number(clamp) and clamp > 0):
        raise IntegrityError(f"conv_clamp is {shown(clamp)}; a positive number or none is expected")
    if config.get("architecture") not in ("skip", "resnet", "orig"):
        raise RefusedError(f"architecture {shown(config.get('architecture'))} is not skip, resnet or orig")
    if type(config.get("use_noise")) is not bool:
        raise IntegrityError(f"use_noise is {shown(config.get('use_noise'))}; yes or no is expected")
    for values in (config, mapping):
        if values.get("activation") != "lrelu":
            raise RefusedError(f"activation {shown(values.get('activation'))} is not 'lrelu', the published one")
    if config.get("resample_filter") != [1, 3, 3, 1]:
        raise RefusedError("the generator resamples with another filter than the published [1, 3, 3, 1]")
    rate = mapping.get("lr_multiplier")
    if not (_is_number(rate) and rate > 0):
        raise IntegrityError(f"lr_multiplier is {shown(rate)}; a positive number is expected")
    if not (_is_number(beta) and 0 <= beta <= 1):
        raise IntegrityError(f"w_avg_beta is {shown(beta)}; a number from 0 to 1 is expected")


def check_eg3d(config: Mapping[str, Any]) -> None:
    """Raise as `check_stylegan2` for the backbone, with the parts that only EG3D has."""
    backbone, large = _object(config, "backbone"), _object(config, "super_resolution")
    decoder, rendering = _object(config, "decoder"), _object(config, "rendering")
    _name(config)
    check_stylegan2(backbone)
    sizes = ("z_dim", "c_dim", "w_dim")
    if any(config.get(key) != backbone[key] for key in sizes):
        raise IntegrityError(f"the generator's {', '.join(sizes)} are not its backbone's; get the file again")
    _whole(config, {"img_resolution": (8, _LARGEST), "neural_rendering_resolution": (1, _LARGEST)})
    _whole(large, _SUPER)
    _whole(decoder, _DECODER)
    if backbone["img_channels"] != 3 * decoder["features"]:
        raise IntegrityError(
            f"the backbone makes {backbone['img_channels']} channels, three planes have {3 * decoder['features']}"
        )
    if large["img_resolution"] != config["img_resolution"]:
        raise IntegrityError("the super-resolution makes another size than the generator; get the file again")
    rate = decoder.get("lr_multiplier")
    if not (_is_number(rate) and rate > 0):
        raise IntegrityError(f"the decoder's lr_multiplier is {shown(rate)}; a positive number is expected")
    missing = [key for key in _RENDERING if key not in rendering]
    if missing:
        raise IntegrityError(f"the checkpoint's rendering_kwargs lack {', '.join(missing)}; get the file again")
    _check_rendering(rendering)


def _check_rendering(rendering: Mapping[str, Any]) -> None:
    _whole(rendering, _SAMPLES)
    for key in ("ray_start", "ray_end"):
        if not (_is_number(rendering[key]) or rendering[key] == "auto"):
            raise IntegrityError(f"the checkpoint's {key} is {shown(rendering[key])}; a number or 'auto' is expected")
    pivot = rendering.get("avg_camera_pivot", [0, 0, 0])
    if not isinstance(pivot, list) or len(pivot) != 3 or not all(map(_is_number, pivot)):
        raise IntegrityError(f"the checkpoint's avg_camera_pivot is {shown(pivot)}; three numbers are expected")
    numbers = {"box_warp": 1, "avg_camera_radius": 1, "c_scale": 0, "density_noise": 0}
    for key, usual in numbers.items():
        value = rendering.get(key, usual)
        if not _is_number(value) or (usual and value <= 0):
            sign = "a positive number" if usual else "a number"
            raise IntegrityError(f"the checkpoint's {key} is {shown(value)}; {sign} is expected")
    for key in _SWITCHES:
        if type(rendering.get(key, False)) is not bool:
            raise IntegrityError(f"the checkpoint's {key} is {shown(rendering[key])}; yes or no is expected")


def check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raise IntegrityError naming the first tensor that is no floating-point one or holds NaN or infinity."""
    for name, value in tensors.items():
        if value.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            raise IntegrityError(f"{name} holds {value.dtype} numbers; floating-point ones are expected")
        if not torch.isfinite(value).all():
            raise IntegrityError(f"{name} holds NaN or infinity; get the file again")


def _object(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    if not isinstance(found, dict):
        raise IntegrityError(f"the checkpoint's settings lack {key}; get the file again")
    return found


def _whole(values: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]]) -> None:
    for key, (least, most) in ranges.items():
        value = values.get(key)
        if type(value) is not int or not least <= value <= most:
            raise IntegrityError(
                f"the checkpoint's {key} is {shown(value)}; a whole number from {least} to {most} is expected"
            )


def _name(config: Mapping[str, Any]) -> None:
    name = config.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise IntegrityError(f"the generator's name is {shown(name)}; up to {_LONGEST_NAME} letters are expected")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
