"""The loop's state, so that an interrupted run continues where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.errors import UsageError
from guide_fast.resumption import read_state, write_state

_KIND = "ltu state"
_LATENT_TOLERANCE = 1e-3  # another number of threads rounds otherwise; people lie around 10 apart


@dataclass
class LoopState:
    """Steps done, curve so far, chosen layers; with `tensors` when it comes from a file."""

    layers: tuple[str, ...]
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)  # plain values: weights, networks, settings
    latents: dict[str, Tensor] = field(default_factory=dict)  # of the request: the person's, the target's, [L, D]
    rows: int = 0  # images of a step that go through the networks at once; 0: as the settings say
    notes: list[str] = field(default_factory=list)  # for the report

    def save(self, path: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Write parameters with Adam's moments; raises GuideFastError when the disk refuses."""
        tensors = {f"latent/{name}": latent.cpu() for name, latent in self.latents.items()}
        for name, parameter in parameters.items():
            tensors[f"value/{name}"] = parameter.detach().cpu()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value.cpu()
        done = {"layers": list(self.layers), "step": self.step, "rows": self.rows, "notes": self.notes}
        done["curve"] = self.curve
        write_state(path, _KIND, tensors, self.request, done)

    @classmethod
    def load(cls, path: Path, request: Mapping[str, Any], latents: Mapping[str, Tensor]) -> LoopState:
        """Raises as `resumption.read_state`, UsageError also when the state was left for other latents."""
        tensors, done = read_state(path, _KIND, request)
        for name, latent in latents.items():
            before = tensors.pop(f"latent/{name}")
            if before.shape != latent.shape or not float((before - latent.cpu()).abs().max()) < _LATENT_TOLERANCE:
                raise UsageError(
                    f"{path} was left by a run with another {name} latent; ask for the same, or start anew without "
                    "--resume"
                )
        known = {"request": {**request}, "latents": {**latents}, "rows": done["rows"], "notes": done["notes"]}
        return cls(tuple(done["layers"]), done["step"], done["curve"], tensors, **known)

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
                    moments[kind] = value if kind == "step" else value.to(parameter.device)
            if moments:
                optimizer.state[parameter] = moments
