"""Decides whether a contender is correct enough to be timed: the 2x error rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from guide_fast.bench.case import Problem
from guide_fast.bench.precision import products

FORWARD_FACTOR, GRADIENT_FACTOR = 2.0, 3.0
BASELINE_SLACK = 4.0  # a baseline has its own order of operations: it has to be the same function, no more
FLOOR = 8.0  # ulps of the largest value that are allowed in any case
EPSILON = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
TF32 = 2.0**-10

Results = list[Tensor]  # the output, then the gradients


class Gate:
    """Knows the exact results of a problem with the error that plain PyTorch makes in the problem's dtype."""

    def __init__(self, problem: Problem, *, tf32: bool) -> None:
        """Computes both; float16 is judged by float32, float32 by float64."""
        dtype = problem.inputs[0].dtype
        wide = torch.float64 if dtype == torch.float32 else torch.float32
        self._problem = problem
        self._epsilon = TF32 if tf32 else EPSILON[dtype]
        with products(tf32=False):
            widened = [t.to(wide) for t in problem.inputs]
            self._exact = results(problem.reference, widened, problem.trained, None)
        with products(tf32=tf32):
            plain = results(problem.reference, problem.inputs, problem.trained, self._exact[0])
        self._allowed = [errors(got, exact) for got, exact in zip(plain, self._exact, strict=True)]

    def complaint(self, function: Callable[..., Any], *, baseline: bool = False) -> str | None:
        """Why `function` must not be timed, or None."""
        got = results(function, self._problem.inputs, self._problem.trained, self._exact[0])
        slack = BASELINE_SLACK if baseline else 1.0
        # a first result of the wrong shape is returned below, without the others
        for i, (value, exact, allowed) in enumerate(zip(got, self._exact, self._allowed, strict=False)):
            what = "the output" if i == 0 else f"the gradient of input {self._of(i)}"
            if value.shape != exact.shape:
                return f"{what} has shape {tuple(value.shape)}, the reference {tuple(exact.shape)}"
            if not value.isfinite().all():
                return f"{what} has {int((~value.isfinite()).sum())} elements that are not finite"
            factor = slack * (GRADIENT_FACTOR if i else FORWARD_FACTOR)
            for kind, error, plain in zip(("largest", "relative"), errors(value, exact), allowed, strict=True):
                scale = exact.abs().max().item() if kind == "largest" else 1.0
                if not error <= factor * plain + FLOOR * self._epsilon * scale:
                    return (
                        f"{what} has a {kind} error of {error:.3g}, plain PyTorch {plain:.3g}, {factor:g}x is allowed"
                    )
        return None

    def _of(self, i: int) -> int:
        trained = self._problem.trained
        return i - 1 if trained is None else trained[i - 1]


def results(
    function: Callable[..., Any], inputs: Iterable[Tensor], trained: tuple[int, ...] | None, like: Tensor | None
) -> Results:
    """The output, the gradients of the trained inputs for a fixed random cotangent; detached.

    The output alone when its shape is not that of `like`.
    """
    leaves = leaves_of(inputs, trained)
    with torch.enable_grad():
        out = function(*leaves)
        if like is not None and out.shape != like.shape:
            return [out.detach()]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        grads = torch.autograd.grad(out, wanted, cotangent(out if like is None else like).to(out)) if wanted else ()
    return [out.detach(), *grads]


def leaves_of(inputs: Iterable[Tensor], trained: tuple[int, ...] | None) -> list[Tensor]:
    """The inputs anew, those that are trained requiring gradients."""
    return [t.detach().requires_grad_(trained is None or i in trained) for i, t in enumerate(inputs)]


def cotangent(out: Tensor) -> Tensor:
    """Random, the same for equal shapes, laid out as `out`."""
    made = torch.randn(out.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float32)
    return torch.empty_like(out).copy_(made)


def errors(got: Tensor, exact: Tensor) -> tuple[float, float]:
    """Largest absolute error, error relative to the norm."""
    difference = got.to(exact.dtype) - exact
    norm = exact.norm().item()
    return difference.abs().max().item(), difference.norm().item() / max(norm, torch.finfo(exact.dtype).tiny)
