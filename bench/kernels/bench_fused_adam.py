"""fused_adam on all convolutions of StyleGAN2-256, with half-precision working copies, without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal
from guide_fast.bench.kernels.bench_modulated_conv2d import stylegan2

OP = "fused_adam"
GOALS: tuple[Goal, ...] = ()
SETTINGS: dict[str, Any] = {"lr": 1e-4, "eps": 1e-8}
BETAS = (0.9, 0.999)
STEPS_CHECKED = 3
FACTOR, FLOOR = 2.0, 2.0**-22  # of the error of torch's own float32 steps; what is allowed in any case


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """One step; no gradients."""
    shapes = [(3, 5), (7,)] if smoke else [(layer.out, layer.channels, 3, 3) for layer in stylegan2(256)]
    for copies in (False, True):
        elements = sum(torch.Size(shape).numel() for shape in shapes)
        # parameter, two moments read, written, a gradient read; the copy written in half precision
        moved = float(elements * (7 * 4 + (2 if copies else 0)))
        name = f"{len(shapes)} tensors, {elements} elements{', half-precision copies' if copies else ''}"
        shape: dict[str, int | str] = {"tensors": len(shapes), "elements": elements, "copies": str(copies)}
        works = (Work(FORWARD, 14.0 * elements, moved),)
        build = partial(_build, tuple(shapes), copies)
        yield Case(OP, name, ("smoke" if smoke else "StyleGAN2-256",), shape, torch.float32, works, build)


def _build(shapes: tuple[tuple[int, ...], ...], copies: bool, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    params, grads = ([random(shape) for shape in shapes] for _ in range(2))
    half = [p.half() for p in params] if copies else None

    def ours(*_: Tensor, impl: str) -> None:
        state = mine.setdefault(impl, _Ours(params, half))
        state.step(grads, impl)

    mine: dict[str, _Ours] = {}
    others = {"foreach": {"foreach": True}} | ({"fused": {"fused": True}} if device.type == "cuda" else {})
    baselines = {
        f"torch.optim.Adam, {name}{' + copies' if copies else ''}": _torch(params, grads, half, **options)
        for name, options in others.items()
    }
    return Problem(
        (params[0],), ours, partial(ours, impl="reference"), baselines, check=partial(_check, params, grads, half)
    )


class _Ours:
    """Parameters, moments, step of one implementation."""

    def __init__(self, params: list[Tensor], half: list[Tensor] | None) -> None:
        self.params = [p.clone() for p in params]
        self.moments = [[torch.zeros_like(p) for p in params] for _ in range(2)]
        self.half = None if half is None else [torch.full_like(p, float("nan")) for p in half]
        self.number = 0

    def step(self, grads: list[Tensor], impl: str) -> None:
        self.number += 1
        settings = SETTINGS | {"beta1": BETAS[0], "beta2": BETAS[1], "step": self.number}
        kernels.fused_adam(self.params, grads, *self.moments, **settings, working_copies=self.half, impl=impl)


def _torch(params: list[Tensor], grads: list[Tensor], half: list[Tensor] | None, **options: bool) -> Callable[..., Any]:
    """A step of PyTorch's optimiser, then the copies by its fused copy of lists."""
    leaves = [p.clone().requires_grad_() for p in params]
    for leaf, grad in zip(leaves, grads, strict=True):
        leaf.grad = grad.clone()
    copies = None if half is None else [p.clone() for p in half]
    optimizer = torch.optim.Adam(leaves, betas=BETAS, **SETTINGS, **options)

    def step(*_: Tensor) -> None:
        optimizer.step()
        if copies is not None:
            torch._foreach_copy_(copies, [leaf.detach() for leaf in leaves])

    return step


def _check(params: list[Tensor], grads: list[Tensor], half: list[Tensor] | None, impl: str) -> str | None:
    """A few steps against torch.optim.Adam in float64; the error may be twice that of its float32."""
    ours = _Ours(params, half)
    leaves = {
        dtype: [p.to(dtype, copy=True).requires_grad_() for p in params] for dtype in (torch.float64, torch.float32)
    }
    for dtype, group in leaves.items():
        optimizer = torch.optim.Adam(group, betas=BETAS, **SETTINGS)
        for leaf, grad in zip(group, grads, strict=True):
            leaf.grad = grad.to(dtype)
        for _ in range(STEPS_CHECKED):
            optimizer.step()
    for _ in range(STEPS_CHECKED):
        ours.step(grads, impl)
    for i, (got, exact, plain) in enumerate(zip(ours.params, *leaves.values(), strict=True)):
        error, allowed = ((t.double() - exact).abs().max().item() for t in (got, plain.detach()))
        if not error <= FACTOR * allowed + FLOOR * exact.abs().max().item():
            return f"parameter {i} has an error of {error:.3g}, torch.optim.Adam {allowed:.3g}"
        if ours.half is not None and not torch.equal(ours.half[i], got.half()):
            return f"working copy {i} is not its parameter"
    return None
