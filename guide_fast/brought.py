"""Weights that users bring themselves: registered once, kept as safetensors, verified whenever they are read."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_fast.assets import AssetStatus, home
from guide_fast.errors import GuideFastError, IntegrityError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # raise it when a conversion changes: what was added before then has to be added anew
_KIND = "brought weights"
_UNKNOWN = "brought by you: licence unknown to us"


@dataclass(frozen=True)
class Brought:
    """A network whose weights guide-fast knows how to read but does not fetch.

    `converter` is "module:function" with the signature
    `convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]`; where something is
    read from `beside` the state dict, it takes `settings: Mapping[str, Any]` as well.
    """

    name: str
    role: str
    wanted: str  # which published files, for people
    files: int  # how many of them at most
    licence: str
    converter: str
    unused: tuple[str, ...] = ()  # starts of names that are not read
    beside: tuple[str, ...] = ()  # entries next to `state_dict` that are read, too
    metric: str | None = None  # what every evaluation reports besides where the network is there
    starts: str | None = None  # generators whose inversions start from it

    @property
    def use(self) -> str:
        """What looks through it once it is there."""
        if self.metric:
            return f"every evaluation ({self.metric})"
        if self.starts:
            return f"the start of every inversion on {self.starts} that it fits"
        return f"Python code that names it ({self.role})"

    @property
    def how(self) -> str:
        """The way to add it."""
        return f"`guide-fast assets add {self.name} {' '.join(['PATH'] * self.files)}` with {self.wanted}"


@dataclass(frozen=True)
class Added:
    """What `add` did: `sha256` of each source, `path` of the file that is served (None: nothing was written)."""

    name: str
    sources: tuple[tuple[Path, str], ...]
    path: Path | None


_ARCFACE = f"{_UNKNOWN}; ArcFace weights are usually for non-commercial research"
_IDENTITY = "guide_fast.models.identity.iresnet:convert"
_LPIPS = "guide_fast.models.perceptual.lpips:convert"
_LPIPS_LICENCE = (
    f"{_UNKNOWN}; the features were trained on ImageNet, whose images are for non-commercial research, the linear "
    "heads are published under BSD-2-Clause"
)
_ENCODERS = "guide_fast.models.encoders"
_ENCODER_LICENCE = (
    f"{_UNKNOWN}; trained on FFHQ, for a generator trained on it, whose images are for non-commercial use: research"
)
_BROUGHT = (
    Brought(
        "arcface-ir50",
        "identity network",
        "the state dict of an IR-50 trained with ArcFace",
        1,
        _ARCFACE,
        _IDENTITY,
    ),
    Brought(
        "arcface-irse50",
        "identity network",
        "model_ir_se50.pth of InsightFace_Pytorch",
        1,
        _ARCFACE,
        _IDENTITY,
    ),
    Brought(
        "arcface-ir100",
        "identity network",
        "the state dict of an IR-100 trained with ArcFace",
        1,
        _ARCFACE,
        _IDENTITY,
    ),
    Brought(
        "curricularface-ir101",
        "one more opinion of every evaluation (id_curricularface)",
        "CurricularFace_Backbone.pth",
        1,
        f"{_UNKNOWN}; CurricularFace weights were trained on faces that are usually for non-commercial research",
        _IDENTITY,
        metric="id_curricularface",
    ),
    Brought(
        "lpips-vgg16",
        "perceptual network",
        "torchvision's vgg16 state dict, then vgg.pth of LPIPS v0.1",
        2,
        _LPIPS_LICENCE,
        _LPIPS,
        unused=("classifier.",),
    ),
    Brought(
        "lpips-alex",
        "perceptual network",
        "torchvision's alexnet state dict, then alex.pth of LPIPS v0.1",
        2,
        _LPIPS_LICENCE,
        _LPIPS,
        unused=("classifier.",),
    ),
    Brought(
        "inception-v3-fid",
        "Frechet inception distance of every evaluation (fid_inception)",
        "pt_inception-2015-12-05-6726825d.pth of pytorch-fid",
        1,
        f"{_UNKNOWN}; TensorFlow published these weights, trained on ImageNet, whose images are for non-commercial "
        "research",
        "guide_fast.models.perceptual.inception:convert",
        unused=("fc.",),
        metric="fid_inception",
    ),
    Brought(
        "e4e-stylegan2",
        "start of inversions on a StyleGAN2",
        "e4e_ffhq_encode.pt of encoder4editing",
        1,
        _ENCODER_LICENCE,
        f"{_ENCODERS}.gradual_style:convert",
        unused=("decoder.",),
        beside=("latent_avg", "opts"),
        starts="a StyleGAN2",
    ),
    Brought(
        "psp-stylegan2",
        "start of inversions on a StyleGAN2",
        "psp_ffhq_encode.pt of pixel2style2pixel",
        1,
        _ENCODER_LICENCE,
        f"{_ENCODERS}.gradual_style:convert",
        unused=("decoder.",),
        beside=("latent_avg", "opts"),
        starts="a StyleGAN2",
    ),
    Brought(
        "goae-eg3d",
        "start of inversions on an EG3D",
        "encoder_FFHQ.pt of GOAE",
        1,
        _ENCODER_LICENCE,
        f"{_ENCODERS}.goae:convert",
        starts="an EG3D",
    ),
)


def list_brought() -> list[Brought]:
    """Every network that can be brought, added or not."""
    return list(_BROUGHT)


def brought(name: str) -> Brought:
    """The one called `name`. Raises UsageError naming the choices."""
    for candidate in _BROUGHT:
        if candidate.name == name:
            return candidate
    names = ", ".join(known.name for known in _BROUGHT)
    raise UsageError(f"no network {name!r} can be brought; choose one of {names}")


def add(name: str, paths: Sequence[Path], *, sha256: Sequence[str] = (), write: bool = True) -> Added:
    """Read the files of `name`, convert them, keep the result in the cache in place of an earlier one.

    `sha256` has the expected hash of each file, or is empty. Without `write` everything is checked, nothing kept. The
    cache sees the old file or all of the new one. Raises UsageError for an unknown name, another network or files
    that are no state dict, IntegrityError for other bytes than expected or damaged ones, RefusedError for a file that
    asks for anything but tensors, GuideFastError when the disk refuses.
    """
    from guide_fast.artifacts import write_safetensors
    from guide_fast.models.state_dict import read_state_file

    known = brought(name)
    if not 1 <= len(paths) <= known.files:
        raise UsageError(f"{name} was given {len(paths)} files; run {known.how}")
    if sha256 and len(sha256) != len(paths):
        raise UsageError(f"{len(sha256)} hashes were given for {len(paths)} files; give one for each, in their order")
    state: dict[str, Tensor] = {}
    more: dict[str, Any] = {"settings": {}} if known.beside else {}
    sources = []
    for i, path in enumerate(paths):
        expected = sha256[i] if sha256 else None
        read = read_state_file(path, sha256=expected, unused=known.unused, beside=known.beside)
        twice = next(iter(state.keys() & read.tensors.keys()), None)
        if twice is not None:
            raise UsageError(f"{path} holds {twice} as an earlier file does; run {known.how}")
        state |= read.tensors
        if known.beside:
            more["settings"] |= read.settings
        sources.append((Path(path).absolute(), read.sha256))
    module, _, function = known.converter.partition(":")
    tensors, config = getattr(importlib.import_module(module), function)(name, state, **more)
    broken = next((key for key, value in tensors.items() if not value.isfinite().all()), None)
    if broken is not None:
        raise IntegrityError(f"{paths[0]}: {broken} holds NaN or infinity after conversion; get the file again")
    if not write:
        return Added(name, tuple(sources), None)
    metadata = {
        "name": name,
        "format": FORMAT,
        "config": config,
        "sources": [{"path": str(path), "sha256": digest} for path, digest in sources],
        "licence": known.licence,
        "sha256": _fingerprint(tensors, config),
    }
    write_safetensors(_served(name), tensors, _KIND, metadata)
    return Added(name, tuple(sources), _served(name))


def available(name: str) -> bool:
    """Whether `name` was added. Looks at names only; `verify` reads the bytes."""
    return _served(brought(name).name).is_file()


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `name` on the CPU with its config, compared with their recorded hash on every call.

    Raises UsageError for an unknown name, GuideFastError saying how to add what was not added, IntegrityError on other
    bytes than were added.
    """
    tensors, metadata = _read(brought(name))
    return tensors, metadata["config"]


def recorded(name: str) -> dict[str, Any]:
    """What was noted of `name` when it was added: config, sha256 among others; `load` alone verifies it.

    Raises what `load` raises but for other bytes, at the cost of the file's head.
    """
    return _metadata(brought(name))


def sources(name: str) -> list[tuple[Path, str]]:
    """Path with sha256 of each file that `name` was made from; raises what `load` raises."""
    return [(Path(source["path"]), source["sha256"]) for source in _read(brought(name))[1]["sources"]]


def verify(name: str) -> AssetStatus:
    """Compare the cached bytes of `name` with the hash that was recorded when it was added."""
    known = brought(name)
    served = _served(name)
    if not served.is_file():
        return AssetStatus(name, "missing", served, f"not added; run {known.how}")
    try:
        _, metadata = _read(known)
    except GuideFastError as error:
        return AssetStatus(name, "tampered", served, str(error))
    return AssetStatus(name, "ok", served, f"sha256 {metadata['sha256'][:12]} as recorded; {known.licence}")


def _served(name: str) -> Path:
    return home() / "brought" / f"{name}.safetensors"


def _read(known: Brought) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from guide_fast.artifacts import read_safetensors

    _metadata(known)
    served, again = _served(known.name), f"run {known.how} again, or remove the file"
    tensors, metadata = read_safetensors(served, _KIND)
    if metadata.get("sha256") != _fingerprint(tensors, metadata.get("config")):
        raise IntegrityError(f"{served} has other bytes than were added; {again}")
    return tensors, metadata


def _metadata(known: Brought) -> dict[str, Any]:
    from guide_fast.artifacts import read_metadata

    served = _served(known.name)
    if not served.is_file():
        raise GuideFastError(
            f"{known.name} ({known.role}) has to be brought by you, and is not in {home()}; run {known.how}"
        )
    again = f"run {known.how} again, or remove the file"
    try:
        metadata = read_metadata(served, _KIND)
    except UsageError as error:
        raise IntegrityError(f"{error}; {again}") from None
    if not isinstance(metadata, dict) or metadata.get("name") != known.name or metadata.get("format") != FORMAT:
        raise IntegrityError(f"{served} was written by another version or for another network; {again}")
    if not isinstance(metadata.get("config"), dict):
        raise IntegrityError(f"{served} has a damaged header; {again}")
    return metadata


def _fingerprint(tensors: dict[str, Tensor], config: Any) -> str:
    from guide_fast.artifacts import tensors_sha256

    return hashlib.sha256(f"{tensors_sha256(tensors)};{json.dumps(config, sort_keys=True)}".encode()).hexdigest()
