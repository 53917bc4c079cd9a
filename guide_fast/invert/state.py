"""A stopped inversion as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_fast.resumption import read_state, write_state

_KIND = "stopped inversion"


@dataclass(frozen=True)
class Snapshot:
    """Everything on which the rest of a descent depends, as it was after a whole step."""

    tensors: dict[str, Tensor]  # parameters, Adam's moments, the best latent, the local head
    numbers: dict[str, Any]  # plain values: phase, step, best loss, curve

    def save(self, path: Path, request: Mapping[str, Any]) -> None:
        """Write atomically, for `request` (plain values) only; raises GuideFastError when the disk refuses."""
        write_state(path, _KIND, self.tensors, request, self.numbers)

    @classmethod
    def load(cls, path: Path, request: Mapping[str, Any]) -> Snapshot:
        """The snapshot at `path`; raises as `resumption.read_state`."""
        return cls(*read_state(path, _KIND, request))
