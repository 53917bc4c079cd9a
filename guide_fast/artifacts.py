"""What passes between stages: frozen values, each saved as safetensors with JSON metadata."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from guide_fast import tensor_files
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.models.generator import Generator

T = TypeVar("T")


@dataclass(frozen=True)
class Face:
    """An aligned face in FFHQ framing."""

    image: Tensor  # [3, R, R] in [-1, 1]
    source_sha256: str  # of the photo's bytes
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 in the upright photo
    landmarks: tuple[tuple[float, float], ...] | None = None  # eyes, nose, mouth corners in the upright photo
    score: float | None = None

    def save(self, path: Path) -> None:
        """Write atomically; raises GuideFastError when the disk refuses."""
        metadata = asdict(self) | {"image": None}
        write_safetensors(path, {"image": self.image}, "face", metadata)

    @classmethod
    def load(cls, path: Path) -> Face:
        """Raises UsageError when `path` is no face file."""
        tensors, metadata = read_safetensors(path, "face")
        metadata["image"] = tensors.get("image")
        for key in ("box", "landmarks"):
            if metadata.get(key) is not None:
                metadata[key] = tuple(tuple(v) if isinstance(v, list) else v for v in metadata[key])
        return _built(cls, path, **metadata)


@dataclass(frozen=True)
class Latent:
    """A point in W+ with where it came from."""

    w: Tensor  # [L, D] fp32
    generator: str  # name
    origin: str  # "seed:7", "photo:<sha256>", "file:<sha256>"
    similarity: float | None = None  # the judge's, of the rendering to the photo
    notes: dict[str, Any] = field(default_factory=dict)  # stage-specific measurements (loss curve, steps)

    def save(self, path: Path) -> None:
        """Write atomically; raises GuideFastError when the disk refuses."""
        metadata = {"generator": self.generator, "origin": self.origin, "similarity": self.similarity}
        write_safetensors(path, {"w": self.w}, "latent", metadata | {"notes": self.notes})

    @classmethod
    def load(cls, path: Path) -> Latent:
        """Raises UsageError when `path` is no latent file or holds NaN or infinity."""
        tensors, metadata = read_safetensors(path, "latent")
        if "w" not in tensors:
            raise UsageError(f"{path} holds no tensor called 'w'; a latent file is made by `guide-fast invert`")
        return _built(cls, path, w=checked_latent(tensors["w"], str(path)), **metadata)


@dataclass(frozen=True)
class Target:
    """Where the forgotten identity is sent."""

    w: Tensor  # [L, D]
    kind: str
    d: float  # length per slot that was used in the end
    pushes: int = 0
    similarity: float | None = None  # the loss network's, of the target's rendering to the source's


@dataclass(frozen=True)
class Delta:
    """What forgetting leaves: the tensors that changed, as the exclusive-or of their bit patterns.

    Exclusive-or makes applying and rolling back the same exact operation, needs no copy of the base weights and
    gives the same bytes on every platform; adding floating-point differences would give none of the three.
    """

    tensors: dict[str, Tensor]  # name -> int32 (int16 for half precision), shape of the parameter
    base_sha256: str  # weights that the delta applies to
    result_sha256: str  # weights it leaves
    generator: str
    parent_sha256: str | None = None  # the delta file applied before this one
    config: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)  # reproducible ones only: no seconds, no memory

    def save(self, path: Path) -> None:
        """Write atomically; the same delta gives the same bytes. Raises GuideFastError when the disk refuses."""
        metadata = {key: value for key, value in vars(self).items() if key != "tensors"}
        write_safetensors(path, self.tensors, "delta", metadata)

    @classmethod
    def load(cls, path: Path) -> Delta:
        """Raises UsageError when `path` is no delta, IntegrityError when its bytes are damaged."""
        tensors, metadata = read_safetensors(path, "delta")
        return _built(cls, path, tensors=tensors, **metadata)

    @property
    def sha256(self) -> str:
        """Hash of the saved form."""
        metadata = {key: value for key, value in vars(self).items() if key != "tensors"}
        return hashlib.sha256(_serialise(self.tensors, "delta", metadata)).hexdigest()

    @property
    def num_parameters(self) -> int:
        """How many scalars the delta touches."""
        return sum(tensor.numel() for tensor in self.tensors.values())


@dataclass(frozen=True)
class Report:
    """Metrics by name together with the curve over steps."""

    metrics: dict[str, Any]
    curve: tuple[dict[str, float], ...] = ()  # per step: step, loss, forgotten, retained (proxies)


@dataclass(frozen=True)
class Forgotten:
    """The result of `guide_fast.forget`."""

    delta: Delta
    metrics: dict[str, Any]
    source: Latent
    target: Target
    report: Report

    @property
    def latents(self) -> dict[str, Tensor]:
        """The person's latent with the target's, each [L, D]."""
        return {"source": self.source.w, "target": self.target.w}


def checked_latent(w: Tensor, name: str) -> Tensor:
    """`w` as fp32; raises UsageError naming the first value that is not finite."""
    bad = (~torch.isfinite(w)).nonzero()
    if len(bad):
        place = tuple(bad[0].tolist())
        raise UsageError(f"{name} holds {w[place].item()} at {list(place)}; give a latent with finite values only")
    return w.float()


def weights_sha256(module: nn.Module | Generator) -> str:
    """Hash of all that a network computes with: its parameters with its buffers.

    A generator's buffers (noise maps, `w_mean`) change what it renders. No delta moves them, so that applying and
    rolling back lead from one hash to the other and back. Its low-resolution heads are left out: derived from the
    weights, they are no part of a saved generator.
    """
    return tensors_sha256({name: v for name, v in module.state_dict().items() if not name.startswith("heads.")})


def rendering_sha256(generator: nn.Module | Generator, resolution: int) -> str:
    """Hash of all that decides an image of `resolution` px: the weights, the head of that size where there is one.

    The weights alone do not: a head fitted before a delta was applied stays, one fitted afterwards would be another.
    The label of a conditional generator counts, too: it decides who z stands for.
    """
    head, label = f"heads.{resolution}.", getattr(generator, "label", None)
    tensors = {
        name: value
        for name, value in generator.state_dict().items()
        if not name.startswith("heads.") or name.startswith(head)
    }
    return tensors_sha256(tensors if label is None else {**tensors, "label": label})


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, dtypes, shapes, bytes, in the order of the names."""
    plain = ((name, tensors[name].detach().contiguous().cpu()) for name in sorted(tensors))
    return tensor_files.digest(
        (name, str(value.dtype), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().data)
        for name, value in plain
    )


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], kind: str, metadata: Mapping[str, Any]) -> None:
    """Write tensors with JSON metadata to `path`: temporary file, fsync, rename."""
    write_bytes(path, _serialise(tensors, kind, metadata))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: nothing half-written is ever seen under that name.

    Raises GuideFastError with the reason when the disk refuses (full, read-only, no permission).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C, too, leaves no temporary file behind
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise GuideFastError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder with --out"
        ) from None


def read_safetensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors with metadata of a file that `write_safetensors` made as `kind`."""
    return tensor_files.read(path, kind, "pt")


def read_metadata(path: Path, kind: str) -> dict[str, Any]:
    """As `read_safetensors`, the metadata alone; costs the head of the file."""
    return tensor_files.read(path, kind, "pt", tensors=False)[1]


def _built(kind: type[T], path: Path, **values: Any) -> T:
    """An artifact from a file's values; raises IntegrityError when they are not the fields of its class."""
    try:
        return kind(**values)
    except TypeError as error:
        raise IntegrityError(f"{path} was written by another version or is damaged ({error}); write it anew") from None


def _serialise(tensors: Mapping[str, Tensor], kind: str, metadata: Mapping[str, Any]) -> bytes:
    ordered = {name: tensors[name].detach().contiguous().cpu() for name in sorted(tensors)}
    return save(ordered, tensor_files.header(kind, metadata))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
