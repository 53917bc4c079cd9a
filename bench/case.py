"""What a benchmark of one operation consists of: shapes, inputs, contenders, the work that cannot be avoided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]  # of the inputs, to one tensor

FORWARD = "forward"
BOTH = "forward + backward"
EAGER = "eager PyTorch"


@dataclass(frozen=True)
class Work:
    """The least that one pass has to do."""

    name: str  # FORWARD or BOTH
    flops: float
    moved: float  # bytes: each input read once, each output written once
    units: Mapping[str, float] = field(default_factory=dict)  # what multiplies -> flops, where that is not one thing

    def by_unit(self, unit: str) -> Mapping[str, float]:
        """What multiplies -> flops; all of them `unit` where nothing else is said."""
        return self.units or {unit: self.flops}


@dataclass(frozen=True)
class Problem:
    """Inputs on a device with everything that computes the same of them."""

    inputs: tuple[Tensor, ...]
    ours: Function  # (*inputs, impl=...) -> tensor
    reference: Function  # (*inputs) -> tensor, any dtype: what the gate compares with
    baselines: Mapping[str, Function]  # (*inputs) -> tensor
    compiled: Mapping[str, Function] = field(default_factory=dict)  # the same; torch.compile gets them
    trained: tuple[int, ...] | None = None  # which inputs want gradients in BOTH; None: all
    captured: bool = False  # ours is also timed as a CUDA graph
    check: Callable[[str], str | None] | None = None  # replaces the gate: a complaint about an impl, or None

    @classmethod
    def against_eager(
        cls, inputs: Sequence[Tensor], ours: Function, *, trained: tuple[int, ...] | None = None, name: str = EAGER
    ) -> Problem:
        """The operation's reference, which is plain PyTorch, eager, compiled."""
        reference = partial(ours, impl="reference")
        return cls(tuple(inputs), ours, reference, {name: reference}, {name: reference}, trained)


@dataclass(frozen=True)
class Case:
    """One shape of one operation."""

    op: str
    name: str
    models: tuple[str, ...]  # where the shape comes from
    shape: Mapping[str, int | str]
    dtype: torch.dtype
    works: tuple[Work, ...]
    build: Callable[[torch.device], Problem]
    tf32: bool = False

    @property
    def unit(self) -> str:
        """What multiplies, as the roofline calls it."""
        return "tf32" if self.tf32 else name_of(self.dtype)


def name_of(dtype: torch.dtype) -> str:
    """`float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Random numbers of a benchmark, made where they are used."""
    return torch.Generator(device).manual_seed(seed)
