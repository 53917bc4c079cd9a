"""What every operation's implementations have to keep, as assertions that the tests of an operation call."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guide_fast.kernels import _dispatch, _extension

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EPSILON = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}

Function = Callable[..., Tensor]


def implementations(*names: str) -> list[object]:
    """pytest parameters of the implementations; those for a GPU are marked so."""
    return [pytest.param(name, marks=pytest.mark.gpu) if name == "cuda" else name for name in names]


def on_a_grid(t: Tensor, *, offset: float = 0.0) -> Tensor:
    """Multiples of 1/8 plus `offset`: exact in every dtype, so that no sum lands on a kink in one dtype only."""
    return (t * 8).round() / 8 + offset


def gradients(function: Function, inputs: Sequence[Tensor], gy: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Output, then the gradient of each floating input for a fixed random cotangent."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    out = function(*leaves)
    if gy is None:
        gy = torch.randn(out.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    grads = torch.autograd.grad(out, leaves, gy.to(out), allow_unused=True)
    return out.detach(), [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)]


def assert_matches(
    function: Function,  # (*inputs) -> Tensor with the implementation under test
    reference: Function,  # the same with impl="reference"
    inputs: Sequence[Tensor],
    *,
    factor: float = 2.0,
    gradient_factor: float = 3.0,
    floor: float = 8.0,
) -> None:
    """The error against fp64 is at most `factor` times that of the reference in the same dtype.

    `floor` ulps of the largest value are allowed in any case: a reference can be exact by luck. Gradients get
    `gradient_factor`. Outputs start as NaN.
    """
    exact_out, exact_grads = gradients(reference, [t.double() for t in inputs])
    plain_out, plain_grads = gradients(reference, inputs)
    with _dispatch.poisoned_outputs():
        out, grads = gradients(function, inputs)
    assert out.shape == plain_out.shape and out.dtype == plain_out.dtype
    _assert_error("output", out, plain_out, exact_out, factor, floor)
    for i, (got, plain, exact) in enumerate(zip(grads, plain_grads, exact_grads, strict=True)):
        _assert_error(f"gradient of input {i}", got, plain, exact, gradient_factor, floor)


def _assert_error(what: str, got: Tensor, plain: Tensor, exact: Tensor, factor: float, floor: float) -> None:
    assert not got.isnan().any(), f"{what}: {int(got.isnan().sum())} of {got.numel()} elements are NaN"
    error, allowed = ((t.double() - exact).abs().max().item() for t in (got, plain))
    ulp = EPSILON[plain.dtype] * exact.abs().max().item()
    assert error <= factor * allowed + floor * ulp, (
        f"{what} is off by {error:.3g}; the reference is off by {allowed:.3g}, {factor} times that is allowed"
    )


def assert_gradcheck(function: Function, inputs: Sequence[Tensor]) -> None:
    """The reference's gradients against finite differences in fp64."""
    assert torch.autograd.gradcheck(function, [t.double().requires_grad_() for t in inputs], atol=1e-6, rtol=1e-4)


def require_extension() -> None:
    """Skip where the native libraries were not built; never in CI, where `make setup` builds them."""
    import os

    if (reason := _extension.missing()) is not None:
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)


def compile_header(header: str, code: str, folder: Path) -> ctypes.CDLL:
    """Device maths of a .cuh, compiled by the host's compiler: `code` is C++ with extern "C" functions."""
    source, library = folder / "maths.cpp", folder / "maths.so"
    source.write_text(f'#include "{header}"\n{code}\n', encoding="utf-8")
    op = ROOT / "kernels" / header.removesuffix(".cuh")
    includes = [f"-I{path}" for path in (op, ROOT / "csrc" / "common", ROOT / "csrc" / "include")]
    others = [f"-I{path}" for path in sorted((ROOT / "kernels").iterdir()) if path.is_dir()]
    command = ["c++", "-std=c++20", "-O1", "-fPIC", "-shared", *includes, *others, str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))
