"""What the benchmarks of whole images share: random weights, contenders, the operations that no program can spare."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.bench.case import FORWARD, Case, Problem, Work
from guide_fast.bench.goals import Judge, Row
from guide_fast.bench.kernels.bench_modulated_conv2d import Layer

EAGER = "eager formulation"


def random_weights(generator: nn.Module) -> nn.Module:
    """As at the start of training, with noise, biases that show; frozen."""
    random = torch.Generator().manual_seed(0)
    for name, tensor in [*generator.named_parameters(), *generator.named_buffers()]:
        if not name.endswith("resample"):
            scale = 0.1 if name.endswith(("bias", "strength")) else 1.0
            value = torch.randn(tensor.shape, generator=random) * scale
            tensor.data.copy_(value + name.endswith("modulation.bias"))
    return generator.eval().requires_grad_(False)


def problem(
    generator: Any,  # of the family's protocol, on the device
    ws: Tensor,  # [N, L, D]
    baseline: Callable[[Tensor], Tensor],
    options: Mapping[str, Any],  # of `synthesis`, on the device: nothing may have to be copied there
) -> Problem:
    """Our image, that of plain PyTorch, `baseline` eager and compiled; ours is also replayed as a CUDA graph.

    The reference in float64 has every layer in float64, also those that the checkpoint computes in half precision. It
    goes image by image: un-fused, eight of EG3D's do not fit.
    """
    exact: list[Any] = []

    @torch.no_grad()
    def ours(ws: Tensor, *, impl: str) -> Tensor:
        generator.impl = impl
        return generator.synthesis(ws, **options).image

    @torch.no_grad()
    def reference(ws: Tensor) -> Tensor:
        if ws.dtype != torch.float64:
            return torch.cat([ours(one[None], impl="reference") for one in ws])
        if not exact:
            exact.append(_exact(generator))
        wide = {key: value.double() if isinstance(value, Tensor) else value for key, value in options.items()}
        return torch.cat([exact[0].synthesis(one[None], **wide).image for one in ws])

    return Problem((ws,), ours, reference, {EAGER: baseline}, {EAGER: baseline}, trained=(), captured=True)


def case(
    op: str,
    shape: Mapping[str, int | str],
    parts: Mapping[str, float],  # what multiplies -> operations of one image
    weights: float,  # bytes, read once whatever the batch
    build: Callable[[torch.device], Problem],
) -> Case:
    """One batch size; products round to tf32 where nothing is in half precision."""
    batch, size = int(shape["batch"]), int(shape["size"])
    units = {unit: batch * flops for unit, flops in parts.items()}
    moved = weights + batch * 3 * size * size * 4.0
    work = Work(FORWARD, sum(units.values()), moved, units)
    return Case(op, f"{size} px, batch {batch}", (op,), shape, torch.float32, (work,), build, tf32=True)


def operations(layers: Iterable[Layer]) -> float:
    """Two a multiply-add."""
    return sum(2.0 * layer.size**2 * layer.channels * layer.out * layer.kernel**2 for layer in layers)


def kernels_of(layers: Iterable[Layer]) -> float:
    """Numbers in the convolutions' weights."""
    return sum(float(layer.channels * layer.out * layer.kernel**2) for layer in layers)


def milliseconds(size: int, batch: int) -> Judge:
    """The device's time for images of `size` px, the shorter of ours as it is called, replayed as a graph."""

    def figure(rows: list[Row]) -> float | None:
        return min(_ours(rows, size, batch), default=None)

    return figure


def images_per_second(size: int, batch: int) -> Judge:
    """Images a second at that batch size, of the same two."""

    def figure(rows: list[Row]) -> float | None:
        return max((batch * 1e3 / ms for ms in _ours(rows, size, batch)), default=None)

    return figure


def _ours(rows: list[Row], size: int, batch: int) -> list[float]:
    return [
        timing["device_ms"]["median"]
        for row in rows
        if "speedup" in row and (row["shape"]["size"], row["shape"]["batch"]) == (size, batch)
        for name, timing in row["contenders"].items()
        if name.startswith("ours")
    ]


def _exact(generator: Any) -> Any:
    """A copy in float64 throughout, of plain PyTorch."""
    made = copy.deepcopy(generator).double()
    made.impl = "reference"
    for module in made.modules():
        if hasattr(module, "half_precision"):
            module.half_precision = False
    return made
