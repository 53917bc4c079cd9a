"""The loop's state, so that an interrupted run continues where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.errors import IntegrityError

_KIND = "ltu state"


@dataclass
class LoopState:
    """Steps done, curve so far, chosen layers; with `tensors` when it comes from a file."""

    layers: tuple[str, ...]
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    base_sha256: str = ""  # of the teacher

    def save(self, path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Write parameters with Adam's moments; raises GuideFastError when the disk refuses."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            tensors[f"value/{name}"] = parameter.detach()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
        metadata = {
            "layers": list(self.layers),
            "base_sha256": self.base_sha256,
            "step": self.step,
            "curve": self.curve,
        }
        write_safetensors(path, tensors, _KIND, metadata)

    @classmethod
    def load(cls, path: Path) -> LoopState:
        """Raises UsageError when there is no such state."""
        tensors, metadata = read_safetensors(path, _KIND)
        try:
            return cls(tuple(metadata["layers"]), metadata["step"], metadata["curve"], tensors, metadata["base_sha256"])
        except KeyError as error:
            raise IntegrityError(f"{path} lacks {error}; start anew without --resume") from None

    def restore(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put the loaded tensors back; does nothing for a fresh state."""
        for name, parameter in parameters.items():
            moments: dict[str, Tensor] = {}
            for key, value in self.tensors.items():
                kind, _, owner = key.partition("/")
                if owner != name:
                    continue
                if kind == "value":
                    parameter.data.copy_(value)
                else:
                    moments[kind] = value
            if moments:
                optimizer.state[parameter] = moments
