"""A stopped inversion as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.errors import IntegrityError
from guide_fast.resumption import check_request

_KIND = "stopped inversion"


@dataclass(frozen=True)
class Snapshot:
    """Everything on which the rest of a descent depends, as it was after a whole step."""

    tensors: dict[str, Tensor]  # parameters, Adam's moments, the best latent, the local head
    numbers: dict[str, Any]  # plain values: phase, step, best loss, curve


@dataclass(frozen=True)
class InversionState:
    """A stopped inversion with what it was asked for."""

    request: dict[str, Any]
    snapshot: Snapshot

    def save(self, path: Path) -> None:
        """Write atomically; raises GuideFastError when the disk refuses."""
        content = {"request": self.request, "numbers": self.snapshot.numbers}
        write_safetensors(path, self.snapshot.tensors, _KIND, content)

    @classmethod
    def load(cls, path: Path, request: Mapping[str, Any]) -> InversionState:
        """The state at `path`; raises UsageError when there is none or it was left by another request."""
        tensors, content = read_safetensors(path, _KIND)
        if not isinstance(content, dict) or not isinstance(content.get("numbers"), dict):
            raise IntegrityError(f"{path} lacks its numbers; start anew without --resume")
        check_request(path, content.get("request"), request)
        return cls(dict(request), Snapshot(tensors, content["numbers"]))
