"""The only door for published checkpoints: any published format in, plain tensors out, nothing in it executed.

Formats: pickles of the StyleGAN2-ADA, StyleGAN3 (StyleGAN2 networks) or EG3D repositories, rosinality's `.pt`, state
dicts with StyleGAN2-ADA names, files that `guide-fast convert` wrote. A pickle is read by a machine of our own that
knows a closed list of operations with a closed list of names (`published/_machine.py`, `published/_globals.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_fast.artifacts import read_safetensors
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.models.published import (
    _eg3d,
    _rosinality,
    _settings,
    _state_dict,
    _stylegan2,
    _torch_file,
)
from guide_fast.models.published._file import read_bytes
from guide_fast.models.published._records import (
    Budget,
    Persistent,
    TensorRecord,
    materialised,
    module_tensors,
)

Built = tuple[dict[str, Tensor], dict[str, Any], str]  # tensors, config, format
_FORMATS = "StyleGAN2-ADA or EG3D pickle (.pkl), rosinality or state dict (.pt), or guide-fast generator (.safetensors)"


@dataclass(frozen=True)
class Published:
    """A published generator as plain values."""

    family: str  # "stylegan2" or "eg3d"
    tensors: dict[str, Tensor]  # as stored, CPU, contiguous, under the module names of the publishing repository
    config: dict[str, Any]  # plain JSON: all that the model is built from
    format: str  # "StyleGAN2-ADA pickle", ...
    sha256: str  # of the file


def read_checkpoint(path: Path) -> Published:
    """The generator in the file at `path`.

    Takes the file's size in memory besides the tensors. Raises UsageError for a file of another kind (StyleGAN3,
    TensorFlow, no checkpoint), RefusedError for one that asks for anything no published checkpoint needs,
    IntegrityError for one that is damaged or contradicts itself.
    """
    path = Path(path)
    data = read_bytes(path, "checkpoints", _FORMATS)
    digest = hashlib.sha256(data).hexdigest()
    if _is_safetensors(data):
        tensors, config = _converted(path)
        return Published(config["family"], tensors, config, "guide-fast generator", digest)
    budget = Budget(len(data))
    try:
        tensors, config, kind = _generator(_root(memoryview(data), budget), path, budget)
    except GuideFastError as error:
        said = str(error)
        raise error if str(path) in said else type(error)(f"{path}: {said}") from None
    return Published(config["family"], tensors, config, kind, digest)


def _generator(root: Any, path: Path, budget: Budget) -> Built:
    """The generator in what a pickle described."""
    ema = root.get("G_ema", root.get("g_ema")) if isinstance(root, dict) else None
    generator = root if ema is None else ema
    if isinstance(generator, Persistent):
        return _from_persistent(generator, path.stem, budget)
    if isinstance(generator, dict):
        records = {key: value for key, value in generator.items() if isinstance(value, TensorRecord)}
        if records and len(records) == len(generator) and all(isinstance(key, str) for key in records):
            return _from_state_dict(records, root, path, budget)
    what = "no StyleGAN2 or EG3D generator"
    if isinstance(root, dict):
        what += f" under G_ema or g_ema (its keys are {', '.join(str(key)[:20] for key in list(root)[:8]) or 'none'})"
    raise UsageError(f"{path} holds {what}; give a {_FORMATS}")


def _root(data: memoryview, budget: Budget) -> Any:
    """What the file holds."""
    start = bytes(data[:64])
    if start.startswith((_torch_file.ZIP, _torch_file.LEGACY)):
        return _torch_file.read_torch(data, budget)
    if start[:1] == b"\x80":
        return _torch_file.read_pickle(data, budget)
    if start.startswith(b"version https://git-lfs"):
        raise UsageError("the file is a Git LFS pointer, not the checkpoint; fetch it with `git lfs pull`")
    if start.lstrip()[:1] == b"<":
        raise UsageError("the file is a web page, not a checkpoint; download the checkpoint itself")
    raise UsageError(
        f"the file is no checkpoint that guide-fast knows (it starts with {start[:8]!r}); give a {_FORMATS}"
    )


def _from_persistent(generator: Persistent, name: str, budget: Budget) -> Built:
    records = module_tensors(generator)
    _stylegan2.refuse_stylegan3(records)
    shapes = {key: record.size for key, record in records.items()}
    if generator.class_name == "TriPlaneGenerator":
        config = _eg3d.eg3d_config(generator, name)
        wanted, kind = _eg3d.eg3d_shapes(config, shapes), "EG3D pickle"
    elif generator.class_name == "Generator":
        config = _stylegan2.stylegan2_config(generator, name)
        wanted, kind = _stylegan2.stylegan2_shapes(config), "StyleGAN2-ADA pickle"
    else:
        raise UsageError(
            f"the file's generator is a {generator.class_name[:60]!r}; Generator (StyleGAN2) and TriPlaneGenerator "
            "(EG3D) are known"
        )
    _stylegan2.check_shapes(shapes, wanted)
    return _checked(materialised(records, budget)), config, kind


def _checked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    _settings.check_numbers(tensors)
    _stylegan2.check_filters(tensors)
    return tensors


def _from_state_dict(records: dict[str, TensorRecord], root: dict[str, Any], path: Path, budget: Budget) -> Built:
    _stylegan2.refuse_stylegan3(records)
    if _rosinality.is_rosinality(records):
        mean = root.get("latent_avg")
        if isinstance(mean, TensorRecord):
            records = records | {"latent_avg": mean}
        tensors = materialised(records, budget)
        tensors = _rosinality.converted(tensors, tensors.pop("latent_avg", None))
        config, kind = _rosinality.rosinality_config(tensors, path.stem), "rosinality state dict"
        sizes = {key: tuple(value.shape) for key, value in tensors.items()}
        _stylegan2.check_shapes(sizes, _stylegan2.stylegan2_shapes(config))
        return _checked(tensors), config, kind
    if _state_dict.is_stylegan2(records):
        sizes = {key: record.size for key, record in records.items()}
        config = _state_dict.state_dict_config(sizes, _settings_beside(path), path.stem)
        _stylegan2.check_shapes(sizes, _stylegan2.stylegan2_shapes(config))
        return _checked(materialised(records, budget)), config, "StyleGAN2-ADA state dict"
    start = ascii(next(iter(records)))[:60]
    raise UsageError(f"{path} is a state dict of another network (it starts with {start}); give a {_FORMATS}")


def _settings_beside(path: Path) -> dict[str, Any]:
    """What the JSON file of the same name says about a state dict; nothing when there is none."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{beside} is no readable JSON ({error}); correct it") from None
    if not isinstance(found, dict):
        raise UsageError(f"{beside} holds no JSON object; write the settings as {{...}}")
    return found


def _is_safetensors(data: bytearray) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _converted(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file that `guide-fast convert` wrote, held against its own settings."""
    try:
        tensors, metadata = read_safetensors(path, "generator")
    except RecursionError:
        raise IntegrityError(f"{path} has settings nested without end; restore it from a good copy") from None
    config = metadata.get("config") if isinstance(metadata, dict) else None
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if isinstance(config, dict) and config.get("family") == "stylegan2":
        _settings.check_stylegan2(config)
        wanted = _stylegan2.stylegan2_shapes(config)
    elif isinstance(config, dict) and config.get("family") == "eg3d":
        _settings.check_eg3d(config)
        wanted = _eg3d.eg3d_shapes(config, shapes)
    else:
        raise UsageError(f"{path} is a generator file of another family; give a {_FORMATS}")
    _stylegan2.check_shapes(shapes, wanted)
    return _checked(tensors), config
