"""EG3D as its repository publishes it: settings from records, shapes from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guide_fast.errors import IntegrityError, RefusedError, UsageError
from guide_fast.models.published._records import Persistent, TensorRecord, child, plain, shown, state_of
from guide_fast.models.published._settings import check_eg3d
from guide_fast.models.published._stylegan2 import (
    PUBLISHED_CHANNEL_BASE,
    PUBLISHED_CHANNEL_MAX,
    Module,
    Shapes,
    block_shapes,
    stylegan2_config,
    stylegan2_shapes,
)

_SUPER_RESOLUTION = "SuperresolutionHybrid"
_KINDS = ("2X", "4X", "8X", "8XDC")
_PLANES = 3
# rows of the three planes' axes; (x, y), (x, z), (z, x) of the published renderer
_PLANE_AXES = [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0]


def eg3d_config(generator: Persistent, name: str) -> dict[str, Any]:
    """The settings that the recorded `generator` was built with, as plain JSON.

    `decoder.outputs` counts the colour features; the decoder's last layer has one row more, the density.
    Raises IntegrityError for a setting that is missing, RefusedError for one that guide-fast does not run.
    """
    backbone, decoder = child(generator, "backbone"), child(generator, "decoder")
    enlarger, renderer = child(generator, "superresolution"), child(generator, "renderer")
    if backbone is None or decoder is None or enlarger is None:
        raise IntegrityError("the EG3D checkpoint lacks its backbone, decoder or super-resolution; get the file again")
    if renderer is not None:
        _check_planes(state_of(renderer).get("plane_axes"))
    state = state_of(generator)
    rendering = plain(state.get("rendering_kwargs"))
    if not isinstance(rendering, dict):
        raise IntegrityError("the EG3D checkpoint lacks its rendering_kwargs; get the file again")
    planes = stylegan2_config(backbone, name)
    config = {
        "family": "eg3d",
        "name": name,
        "z_dim": planes["z_dim"],
        "c_dim": planes["c_dim"],
        "w_dim": planes["w_dim"],
        "img_resolution": _whole(state, "img_resolution"),
        "neural_rendering_resolution": _whole(state, "neural_rendering_resolution"),
        "backbone": planes,
        "super_resolution": _super_resolution(enlarger, rendering),
        "decoder": _decoder(decoder, rendering),
        "rendering": rendering,
    }
    check_eg3d(config)
    return config


def eg3d_shapes(config: Mapping[str, Any], found: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Name -> shape of every tensor; the super-resolution's widths, no setting, are those `found` in the file."""
    shapes = {f"backbone.{name}": shape for name, shape in stylegan2_shapes(config["backbone"]).items()}
    large, decoder = config["super_resolution"], config["decoder"]
    layers = {"w_dim": config["w_dim"], "img_channels": 3, "architecture": "skip", "use_noise": True}
    inputs = large["channels"]
    for block, resolution in (("block0", large["img_resolution"] // 2), ("block1", large["img_resolution"])):
        place = f"superresolution.{block}"
        weight = found.get(f"{place}.conv1.weight", ())
        if not weight:
            raise IntegrityError(f"the checkpoint lacks {place}.conv1.weight; get the file again")
        shapes[f"{place}.resample_filter"] = (4, 4)
        shapes |= block_shapes(place, layers, resolution=resolution, inputs=inputs, outputs=weight[0], last=True)
        inputs = weight[0]
    if "superresolution.resample_filter" in found:  # 2X and 4X keep one
        shapes["superresolution.resample_filter"] = (4, 4)
    hidden, features, outputs = decoder["hidden"], decoder["features"], decoder["outputs"] + 1
    return shapes | {
        "decoder.net.0.weight": (hidden, features),
        "decoder.net.0.bias": (hidden,),
        "decoder.net.2.weight": (outputs, hidden),
        "decoder.net.2.bias": (outputs,),
    }


def _super_resolution(module: Module, rendering: Mapping[str, Any]) -> dict[str, Any]:
    name = module.class_name if isinstance(module, Persistent) else module.kind.name
    kind = name.removeprefix(_SUPER_RESOLUTION)
    if not name.startswith(_SUPER_RESOLUTION) or kind not in _KINDS:
        raise UsageError(
            f"the checkpoint's super-resolution is {name[:60]!r}; {_SUPER_RESOLUTION} 2X, 4X, 8X and 8XDC are known"
        )
    kept = state_of(module).get("_init_kwargs")
    if not isinstance(kept, dict):
        raise IntegrityError("the super-resolution's settings are missing; get the file again")
    return {
        "kind": kind,
        "channels": _whole(kept, "channels"),
        "img_resolution": _whole(kept, "img_resolution"),
        "sr_num_fp16_res": _whole(kept, "sr_num_fp16_res", 0),
        "sr_antialias": _required(kept, "sr_antialias", bool),
        "noise_mode": _required(rendering, "superresolution_noise_mode", str),
        "channel_base": plain(kept.get("channel_base", PUBLISHED_CHANNEL_BASE)),
        "channel_max": plain(kept.get("channel_max", PUBLISHED_CHANNEL_MAX)),
    }


def _decoder(decoder: Module, rendering: Mapping[str, Any]) -> dict[str, Any]:
    first, last = child(decoder, "net", "0"), child(decoder, "net", "2")
    if first is None or last is None:
        raise IntegrityError("the decoder lacks a layer; get the file again")
    gains = [plain(state_of(layer).get("bias_gain")) for layer in (first, last)]  # the rate that was built in
    if not isinstance(gains[0], int | float) or gains[0] != gains[1]:
        raise IntegrityError(f"the decoder's layers have the learning rate multipliers {gains}; one number is expected")
    return {
        "features": _whole(state_of(first), "in_features"),
        "outputs": _whole(state_of(last), "out_features", 2) - 1,
        "hidden": _whole(state_of(first), "out_features"),
        "lr_multiplier": float(gains[0]),
    }


def _check_planes(axes: object) -> None:
    if axes is None:
        return
    if not isinstance(axes, TensorRecord) or axes.size != (_PLANES, 3, 3):
        raise IntegrityError("the renderer's plane axes are damaged; get the file again")
    if axes.tensor().flatten().tolist() != _PLANE_AXES:
        raise RefusedError(
            "the checkpoint's tri-planes lie along other axes than EG3D publishes; guide-fast runs those"
        )


def _whole(values: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = values.get(key)
    if type(value) is not int or not least <= value <= 1 << 16:
        raise IntegrityError(f"the checkpoint's {key} is {shown(value)}; a whole number from {least} is expected")
    return value


def _required(values: Mapping[str, Any], key: str, kind: type) -> Any:
    value = values.get(key)
    if not isinstance(value, kind):
        raise IntegrityError(f"the checkpoint's {key} is {shown(value)}; a {kind.__name__} is expected")
    return value
