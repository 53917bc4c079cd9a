"""identity_loss on the embeddings that the methods compare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import BOTH, EAGER, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal, average_speedup

OP = "identity_loss"
GOALS = (Goal("forward + backward at least 8x eager", 8.0, average_speedup(BOTH, EAGER)),)
SHAPES = ((1, 512, "cosine"), (8, 512, "cosine"), (5, 128, "l2"), (8, 1024, "cosine"))  # pairs, length, kind


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Half precision, float32."""
    for shape in ((3, 17, "cosine"), (3, 17, "l2")) if smoke else SHAPES:
        for dtype in (torch.float32,) if smoke else (torch.float16, torch.float32):
            yield _case(*shape, dtype)


def _case(pairs: int, length: int, kind: str, dtype: torch.dtype) -> Case:
    elements = pairs * length
    read = 2 * elements * dtype.itemsize
    works = (Work(FORWARD, 8.0 * elements, read), Work(BOTH, 17.0 * elements, read + elements * dtype.itemsize))
    shape: dict[str, int | str] = {"pairs": pairs, "length": length, "kind": kind}
    models = {128: "dlib", 512: "ArcFace", 1024: "judge"}
    name = f"{pairs} pairs of {length}, {kind}"
    build = partial(_build, pairs, length, kind, dtype)
    return Case(OP, name, (models.get(length, "smoke"),), shape, dtype, works, build)


def _build(pairs: int, length: int, kind: str, dtype: torch.dtype, device: torch.device) -> Problem:
    random = partial(torch.randn, generator=generator(1, device), device=device)
    inputs = tuple(random(pairs, length).to(dtype) for _ in range(2))

    def ours(a: Tensor, b: Tensor, *, impl: str) -> Tensor:
        return kernels.identity_loss(a, b, kind=kind, reduction="mean", impl=impl)

    return Problem.against_eager(inputs, ours, trained=(0,))
