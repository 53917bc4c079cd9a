"""face_crop for the framings of three face networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from guide_fast import kernels
from guide_fast.bench.case import BOTH, FORWARD, Case, Problem, Work, generator
from guide_fast.bench.goals import Goal

OP = "face_crop"
GOALS: tuple[Goal, ...] = ()
BOX = (0.2, 0.9, 0.15, 0.85)
SIZES = {"ArcFace": 112, "dlib": 150, "judge": 224}


def cases(*, smoke: bool = False) -> Iterator[Case]:
    """Images of 256, 512, 1024 px in half precision; 512 px in float32."""
    if smoke:
        yield _case("dlib", 1, 40, torch.float32)
        return
    for batch, pixels in ((5, 512), (1, 1024), (8, 256)):
        for network in SIZES:
            yield _case(network, batch, pixels, torch.float16)
            if pixels == 512:
                yield _case(network, batch, pixels, torch.float32)


def _case(network: str, batch: int, pixels: int, dtype: torch.dtype) -> Case:
    size = SIZES[network]
    inside = batch * 3 * pixels**2 * (BOX[1] - BOX[0]) * (BOX[3] - BOX[2])
    moved = (inside + batch * 3 * size**2) * dtype.itemsize
    # every input pixel of the box meets the two triangles that cover it, each way
    flops = 2.0 * 4 * inside
    whole = batch * 3 * pixels**2 * dtype.itemsize  # the gradient is zero outside of the box: written all the same
    works = (Work(FORWARD, flops, moved), Work(BOTH, 2 * flops, moved + whole + batch * 3 * size**2 * dtype.itemsize))
    shape = {"batch": batch, "pixels": pixels, "size": size}
    name = f"{network}, {pixels} px to {size} px, batch {batch}"
    return Case(OP, name, (network,), shape, dtype, works, partial(_build, network, batch, pixels, dtype))


def _build(network: str, batch: int, pixels: int, dtype: torch.dtype, device: torch.device) -> Problem:
    from guide_fast.kernels.face_crop.framing import Framing

    framings: dict[str, Callable[[], Framing]] = {
        "ArcFace": Framing.arcface,
        "dlib": partial(Framing.dlib, BOX),
        "judge": partial(Framing.faceres, BOX),
    }
    framing = framings[network]()
    image = torch.rand(batch, 3, pixels, pixels, generator=generator(1, device), device=device) * 2 - 1

    def ours(image: Tensor, *, impl: str) -> Tensor:
        return kernels.face_crop(image, framing, impl=impl)

    return Problem.against_eager((image.to(dtype),), ours)
