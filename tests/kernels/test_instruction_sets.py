"""GUIDE_FAST_ISA lowers the instruction set of the CPU kernels; every level gives the same results to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import (
    Framing,
    _extension,
    bias_act,
    face_crop,
    feature_distance,
    fused_adam,
    haar,
    identity_loss,
    modulated_conv2d,
    separable_conv2d,
    triplane_render,
    upfirdn2d,
)

LEVELS = {"base": "base", "v3": "AVX2"}  # what GUIDE_FAST_ISA takes, what it is called


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def results(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Output, then every gradient."""
    out, grads = contract.gradients(function, inputs)
    return [out, *grads]


def render() -> list[Tensor]:
    """Features of a few rays, with the gradients of planes and decoder."""
    rays = torch.nn.functional.normalize(torch.tensor([0.02, 0.03, -1.0]) + 0.13 * normal(1, 9, 3, seed=5), dim=-1)
    origins = torch.tensor([0.05, -0.1, 2.7]).expand(1, 9, 3)

    def features(planes: Tensor, *decoder: Tensor) -> Tensor:
        return triplane_render(
            planes, origins, rays, decoder, depth_resolution=9, depth_resolution_importance=5, impl="cpu"
        )[0]

    return results(
        features,
        normal(1, 3, 32, 11, 13),
        normal(64, 32, seed=1) * 0.4,
        normal(64, seed=2) * 0.2,
        normal(33, 64, seed=3) * 0.2,
        normal(33, seed=4) * 0.5,
    )


def winograd() -> list[Tensor]:
    """By panels of output channels, then, for more tiles than channels, by tiles."""
    found = []
    for n, inputs, outputs in ((1, 19, 37), (2, 21, 3)):
        x = normal(n, inputs, 9, 13).contiguous(memory_format=torch.channels_last)
        tensors = x, normal(outputs, inputs, 3, 3, seed=1), normal(n, inputs, seed=2), None, normal(outputs), None
        settings = 1, True, False, "lrelu", 0.2, 1.0, -1.0, "winograd_cpu"
        found.append(torch.ops.guide_fast.modulated_conv2d(*tensors, *settings)[0])
    return found


def step() -> list[Tensor]:
    """Parameter with moments after one step."""
    state = [normal(7, 19), torch.zeros(7, 19), torch.zeros(7, 19)]
    fused_adam([state[0]], [normal(7, 19, seed=1)], [state[1]], [state[2]], step=1, lr=0.1, impl="cpu")
    return state


# One call of each operation that has a native CPU path, on sizes that no vector width divides.
CASES: dict[str, Callable[[], list[Tensor]]] = {
    "bias_act": lambda: results(
        lambda x, b: bias_act(x, b, clamp=1.5, impl="cpu"), normal(2, 5, 7, 9), normal(5, seed=1)
    ),
    "face_crop": lambda: results(
        lambda x: face_crop(x, Framing((0.1, 0.9, 0.2, 0.8), 13), impl="cpu"), normal(2, 3, 37, 37)
    ),
    "feature_distance": lambda: results(
        lambda a, b: feature_distance([a], [b], impl="cpu"), normal(2, 13, 5, 7), normal(2, 13, 5, 7, seed=1)
    ),
    "fused_adam": step,
    "haar": lambda: results(lambda x, s: haar(x, s, impl="cpu"), normal(2, 12, 5, 7), normal(2, 12, seed=1)),
    "identity_loss": lambda: results(
        lambda a, b: identity_loss(a, b, impl="cpu"), normal(3, 129), normal(3, 129, seed=1)
    ),
    "modulated_conv2d": lambda: (
        [
            modulated_conv2d(
                normal(2, 7, 5, 9),
                normal(11, 7, 3, 3, seed=1),
                normal(2, 7, seed=2),
                bias=normal(11),
                up=up,
                impl="cpu",
            )
            for up in (1, 2)
        ]
        + winograd()
    ),
    "separable_conv2d": lambda: results(
        lambda x, d, p, s, b: separable_conv2d(x, d, p, s, bias=b, impl="cpu"),
        normal(2, 13, 5, 9),
        normal(13, 1, 3, 3, seed=1),
        normal(11, 13, 1, 1, seed=2),
        normal(2, 13, seed=3),
        normal(11, seed=4),
    ),
    "triplane_render": render,
    "upfirdn2d": lambda: results(
        lambda x: upfirdn2d(x, torch.tensor([1.0, 3.0, 3.0, 1.0]), up=2, padding=(2, 1, 2, 1), impl="cpu"),
        normal(2, 5, 7, 9),
    ),
}


def run_all(path: str) -> None:
    """Store the results of every case, with the level that computed them."""
    assert _extension.missing() is None, _extension.missing()
    torch.save({"level": _extension.instruction_set()} | {op: case() for op, case in CASES.items()}, path)


def at_level(level: str | None, folder: Path) -> dict[str, object]:
    """`run_all` in a process of its own: the level is read once."""
    environment = {name: value for name, value in os.environ.items() if name != "GUIDE_FAST_ISA"}
    if level:
        environment["GUIDE_FAST_ISA"] = level
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    path = folder / f"{level}.pt"
    code = f"import test_instruction_sets as t; t.run_all({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(path)


@pytest.fixture(scope="module")
def highest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What this machine computes unasked."""
    contract.require_extension()
    return at_level(None, tmp_path_factory.mktemp("highest"))


@pytest.mark.parametrize("level", LEVELS)
def test_lower_instruction_set_gives_the_same_results(level: str, highest: dict[str, object], tmp_path: Path) -> None:
    lower = at_level(level, tmp_path)
    if level != "base" and highest["level"] == "base":
        pytest.skip(f"this CPU has no {LEVELS[level]}")
    assert lower["level"] == LEVELS[level]
    for op in CASES:
        for i, (got, wanted) in enumerate(zip(lower[op], highest[op], strict=True)):
            assert not got.isnan().any()
            error = (got - wanted).abs().max().item()
            assert error <= 1e-5 * wanted.abs().max().item(), f"{op}, result {i}: off by {error:.3g} at {level}"


def test_every_native_operation_has_a_case() -> None:
    native = {path.parent.name for path in (contract.ROOT / "kernels").glob("*/*_cpu.cpp")}
    assert native <= CASES.keys(), f"add {', '.join(sorted(native - CASES.keys()))} to CASES"
