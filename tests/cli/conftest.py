"""A way to run the command line inside the test's process, with a stand-in for the pipeline."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import guide_fast
from guide_fast.artifacts import Delta, Latent, Report, weights_sha256
from guide_fast.cli import main

Run = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """Fails unless stdout is one JSON object without NaN."""

        def refuse(name: str) -> Any:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.stdout, parse_constant=refuse)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of whoever runs the tests decide nothing, except where weights lie."""
    for name in os.environ:
        if name.startswith("GUIDE_FAST_") and name not in ("GUIDE_FAST_HOME", "GUIDE_FAST_OFFLINE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("render", "--seed", 7)` is `guide-fast render --seed 7`."""

    def call(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return call


class TinyGenerator(nn.Module):
    name = "tiny"
    layers = ("coarse", "fine")

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Parameter(torch.arange(4.0))
        self.fine = nn.Parameter(torch.ones(3))

    def layer_parameters(self, layer: str) -> dict[str, nn.Parameter]:
        return {layer: getattr(self, layer)}


@dataclass
class Pipeline:
    """Records what it is asked; does as little as the contract allows."""

    metrics: dict[str, Any] = field(default_factory=lambda: {"forgotten": 0.4, "retained": 0.97, "shortfalls": []})
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    during: Callable[[Path | None], None] = lambda out: None  # runs inside the long calls

    def asked(self, name: str) -> dict[str, Any]:
        """The arguments of the only call of `name`."""
        (found,) = [arguments for called, arguments in self.calls if called == name]
        return found

    def load_generator(self, name: str, **arguments: Any) -> TinyGenerator:
        self.calls.append(("load_generator", {"name": name} | arguments))
        return TinyGenerator()

    def forget(self, generator: Any, *, progress: Any, **arguments: Any) -> Any:
        self.calls.append(("forget", arguments))
        sys.stdout.write("a library prints\n")
        for step in range(3):
            progress("unlearning", step, 2, {"loss": 0.5})
        self.during(arguments["out"])
        return SimpleNamespace(metrics=self.metrics)

    def plan_forget(self, generator: Any, **arguments: Any) -> dict[str, Any]:
        self.calls.append(("plan_forget", {"generator": generator} | arguments))
        return {"source": "seed:7", "layers": ["coarse"], "assets": {"missing": []}}

    def invert_photo(self, generator: Any, photo: Path, **arguments: Any) -> Latent:
        self.calls.append(("invert_photo", {"photo": photo} | arguments))
        return Latent(torch.zeros(2, 3), "tiny", "photo:ab", similarity=0.8)

    def evaluate_delta(self, generator: Any, delta: Delta, latent: Latent, **arguments: Any) -> Report:
        self.calls.append(("evaluate_delta", {"delta": delta, "latent": latent} | arguments))
        return Report(self.metrics)

    def render(self, generator: Any, **arguments: Any) -> list[Image.Image]:
        self.calls.append(("render", arguments))
        return [Image.new("RGB", (4, 4))]

    def apply_delta(self, generator: nn.Module, delta: Delta) -> nn.Module:
        self.calls.append(("apply_delta", {"delta": delta}))
        with torch.no_grad():
            for name, change in delta.tensors.items():
                bits = dict(generator.named_parameters())[name].view(torch.int32)
                bits ^= change
        return generator

    rollback = apply_delta  # exclusive-or undoes itself

    def save_generator(self, generator: nn.Module, path: Path) -> None:
        path.write_text(weights_sha256(generator), encoding="utf-8")


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The stand-in, in place of guide_fast.pipeline."""
    stand_in = Pipeline()
    module = ModuleType("guide_fast.pipeline")
    for name in dir(stand_in):
        if callable(getattr(stand_in, name)) and not name.startswith("_"):
            setattr(module, name, getattr(stand_in, name))
    monkeypatch.setitem(sys.modules, "guide_fast.pipeline", module)
    monkeypatch.setattr(guide_fast, "pipeline", module, raising=False)
    return stand_in


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """A run folder whose delta fits TinyGenerator."""
    before, after = TinyGenerator(), TinyGenerator()
    after.fine.data += 0.5
    folder = tmp_path / "run"
    Delta(
        tensors={"fine": before.fine.data.view(torch.int32) ^ after.fine.data.view(torch.int32)},
        base_sha256=weights_sha256(before),
        result_sha256=weights_sha256(after),
        generator="tiny",
    ).save(folder / "delta.safetensors")
    Latent(torch.zeros(2, 3), "tiny", "seed:7").save(folder / "latent.safetensors")
    return folder
