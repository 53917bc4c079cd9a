"""Measures the device's two ceilings: bytes a second of a copy, operations a second of a matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from guide_fast.bench.precision import products
from guide_fast.bench.timer import CudaTimer

COPY_BYTES = 1 << 30
SIZES = {"float16": 8192, "bfloat16": 8192, "tf32": 8192, "float32": 4096}


@dataclass(frozen=True)
class Roofline:
    """Measured ceilings of one device."""

    bytes_per_s: float  # read plus written
    flops_per_s: dict[str, float]  # by what multiplies: "float16", "bfloat16", "tf32", "float32"

    def least_seconds(self, flops: Mapping[str, float], moved: float) -> float:
        """No program that does `flops` (by what multiplies), moves `moved` bytes is much faster than this."""
        return max(self._multiplying(flops), moved / self.bytes_per_s)

    def bound(self, flops: Mapping[str, float], moved: float) -> str:
        """Which of the two ceilings is nearer: "bytes" or "flops"."""
        return "flops" if self._multiplying(flops) > moved / self.bytes_per_s else "bytes"

    def _multiplying(self, flops: Mapping[str, float]) -> float:
        return sum(count / self.flops_per_s[unit] for unit, count in flops.items())

    def saved(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def measure(timer: CudaTimer, *, copy_bytes: int = COPY_BYTES, sizes: dict[str, int] | None = None) -> Roofline:
    """The ceilings of the current CUDA device, on random data."""
    bytes_per_s = _copy(timer, copy_bytes)
    flops = {}
    for unit, n in (sizes or SIZES).items():
        dtype = torch.float32 if unit in ("tf32", "float32") else getattr(torch, unit)
        a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
        with products(tf32=unit == "tf32"):
            call = partial(torch.matmul, a, b)
            flops[unit] = 2 * n**3 / (timer.compare({unit: call})[unit].device_ms["median"] * 1e-3)
    return Roofline(bytes_per_s, flops)


def _copy(timer: CudaTimer, copy_bytes: int) -> float:
    source = torch.randn(copy_bytes // 4, device="cuda")
    target = torch.empty_like(source)
    ms = timer.compare({"copy": lambda: target.copy_(source)})["copy"].device_ms["median"]
    return 2 * copy_bytes / (ms * 1e-3)
