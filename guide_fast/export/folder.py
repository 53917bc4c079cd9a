"""The folder of an exported generator: its manifest, weights, parts, read without PyTorch.

engine.json says what the parts are and how each of their initializers follows from the generator's weights;
weights.safetensors has those weights with their bits, so that deltas (exclusive-or of bits) apply to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast import tensor_files
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.export.rules import RULES, Array, Rule

FORMAT = 1
MANIFEST, WEIGHTS = "engine.json", "weights.safetensors"
WEIGHTS_KIND = "exported weights"

Change = dict[tuple[str, str], Array]  # (part, tensor) -> its new value


@dataclass(frozen=True)
class Port:
    """An input or an output of a part; the first side is "batch"."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str  # NumPy's name


@dataclass(frozen=True)
class Part:
    """One graph of an exported generator, in a file of its own."""

    name: str
    path: Path
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class StoredDelta:
    """A delta file, read without PyTorch; `guide_fast.artifacts.Delta` is the same with PyTorch."""

    tensors: dict[str, Array]  # exclusive-or of bits, int32 (int16 for half precision)
    base_sha256: str
    result_sha256: str
    generator: str
    sha256: str  # of the file

    @classmethod
    def load(cls, path: Path | str) -> StoredDelta:
        """A run folder stands for the delta in it. Raises UsageError for no delta, IntegrityError for damaged bytes."""
        path = Path(path) / "delta.safetensors" if Path(path).is_dir() else Path(path)
        tensors, metadata = tensor_files.read(path, "delta", "np")
        try:
            hashes = metadata["base_sha256"], metadata["result_sha256"], metadata["generator"]
        except (KeyError, TypeError):
            raise IntegrityError(f"{path} lacks the hashes of its weights; restore it from a good copy") from None
        return cls(tensors, *hashes, file_sha256(path))


@dataclass(frozen=True)
class ExportedGenerator:
    """An exported generator at one version of its weights; values stay as they are, a delta leads to another one."""

    folder: Path
    manifest: Mapping[str, Any]
    weights_sha256: str
    lineage: tuple[str, ...]
    tensors: Mapping[str, Array]

    @classmethod
    def load(cls, folder: Path | str) -> ExportedGenerator:
        """Read `folder`, verifying every sha256.

        Raises UsageError when it is no exported generator, IntegrityError when a file is damaged, changed or absent.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            digests = {folder / part["file"]: part["sha256"] for part in manifest["parts"]}
            names = [part["file"] for part in manifest["parts"]]
            expected, lineage = manifest["weights_sha256"], tuple(manifest["lineage"])
            rules = [Rule.from_entry(entry) for entry in manifest["refit"]]
        except (KeyError, TypeError) as error:
            raise _damaged(folder / MANIFEST, f"it lacks {error}") from None
        if any(name != Path(name).name for name in names):
            raise _damaged(folder / MANIFEST, "it names files outside the folder")
        for path, digest in digests.items():
            if not path.is_file():
                raise _damaged(path, "it is not there")
            if (found := file_sha256(path)) != digest:
                raise _damaged(path, f"its sha256 is {found[:12]}, the manifest says {digest[:12]}")
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise _damaged(weights, "it is not there")
        tensors, _ = tensor_files.read(weights, WEIGHTS_KIND, "np")
        if (found := weights_sha256(tensors)) != expected:
            raise _damaged(weights, f"its weights have sha256 {found[:12]}, the manifest says {expected[:12]}")
        for rule in rules:
            if rule.source not in tensors or rule.rule not in RULES:
                raise _damaged(weights, f"it lacks {rule.source!r}, which {rule.rule!r} is applied to")
        return cls(folder, manifest, expected, lineage, tensors)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The graphs in the order in which an image passes them."""
        return tuple(
            Part(
                part["name"],
                self.folder / part["file"],
                part["sha256"],
                _ports(part["inputs"]),
                _ports(part["outputs"]),
            )
            for part in self.manifest["parts"]
        )

    def weights(self) -> dict[str, Array]:
        """Parameters with buffers of the generator at this version, by their names in it."""
        return dict(self.tensors)

    def changed_by(self, delta: StoredDelta | Path | str, *, undo: bool = False) -> Change:
        """What `delta` changes: (part, tensor) -> the initializer's new value; `undo` takes the delta out again.

        Raises UsageError when the delta was made for other weights, IntegrityError when it does not lead to the
        weights it promises.
        """
        return self.after(delta, undo=undo)[1]

    def after(self, delta: StoredDelta | Path | str, *, undo: bool = False) -> tuple[ExportedGenerator, Change]:
        """The generator that `delta` leads to, with what `changed_by` says; deltas stack in their order."""
        delta = delta if isinstance(delta, StoredDelta) else StoredDelta.load(delta)
        expected, promised = delta.base_sha256, delta.result_sha256
        if undo:
            expected, promised = promised, expected
        if self.weights_sha256 != expected:
            verb = "rolled back from" if undo else "applied to"
            raise UsageError(
                f"the delta for {delta.generator} can only be {verb} weights with sha256 {expected[:12]}, this "
                f"export has {self.weights_sha256[:12]}; export the generator with the deltas that came before it"
            )
        tensors = dict(self.tensors)
        for name, change in delta.tensors.items():
            tensors[name] = _flipped(name, tensors.get(name), change, delta.generator)
        if weights_sha256(tensors) != promised:
            raise IntegrityError(
                f"the delta is damaged: it does not lead to the promised weights {promised[:12]}; restore it from a "
                "good copy"
            )
        changed = {
            (entry["part"], entry["tensor"]): Rule.from_entry(entry).value(tensors)
            for entry in self.manifest["refit"]
            if entry["source"] in delta.tensors
        }
        lineage = self.lineage[:-1] if undo else (*self.lineage, delta.sha256)
        return replace(self, weights_sha256=promised, lineage=lineage, tensors=tensors), changed


def read_manifest(folder: Path) -> dict[str, Any]:
    """engine.json; raises UsageError when there is none, IntegrityError when it was changed after it was written."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} holds no exported generator ({MANIFEST}); make one with `guide-fast export`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest.pop("manifest_sha256")
    except (ValueError, KeyError, AttributeError):
        raise _damaged(path, "it is no manifest") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); change its permissions") from None
    if found != _manifest_sha256(manifest):
        raise _damaged(path, "it was changed after it was written")
    if manifest.get("format") != FORMAT:
        raise UsageError(
            f"{path} has format {manifest.get('format')!r}, this version reads {FORMAT}; export the generator anew"
        )
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """What engine.json holds: the manifest, with a hash of itself."""
    complete = {"format": FORMAT, **manifest}
    return json.dumps(complete | {"manifest_sha256": _manifest_sha256(complete)}, indent=1) + "\n"


def weights_sha256(tensors: Mapping[str, Array]) -> str:
    """As `guide_fast.artifacts.weights_sha256` of the generator that has these parameters, buffers."""
    plain = ((name, np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape)) for name in sorted(tensors))
    return tensor_files.digest(
        (name, f"torch.{value.dtype.name}", tuple(value.shape), value.reshape(-1).view(np.uint8).data)
        for name, value in plain
    )


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flipped(name: str, value: Array | None, change: Array, generator: str) -> Array:
    if value is None or value.shape != change.shape or value.itemsize != change.itemsize:
        raise IntegrityError(f"the delta changes {name!r}, which the exported {generator} does not have in that form")
    return np.asarray(value.view(change.dtype) ^ change).view(value.dtype)


def _ports(entries: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(entry["name"], tuple(entry["shape"]), entry["dtype"]) for entry in entries)


def _manifest_sha256(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(f"{path} is damaged: {reason}; export the generator anew")
