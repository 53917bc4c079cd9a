"""Times calls on a CUDA device by events: warmed up, cache flushed, contenders in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from guide_fast.bench.record import quantiles

Call = Callable[[], Any]

CYCLES_PER_MS = 2_000_000  # of the device's clock, at most about this
LEAST_HEAD_START_MS = 0.2


@dataclass(frozen=True)
class Timing:
    """What one contender took; milliseconds, bytes."""

    device_ms: dict[str, float]  # quantiles over the repeats
    host_ms: float  # to issue one call while the device is busy
    peak_bytes: int | None  # allocated by one call beyond what was there before; None: not measured
    repeats: int


class CudaTimer:
    """Times contenders against each other on the current CUDA device."""

    measures = True

    def __init__(self, *, warm_up: int = 5, repeats: int = 30, most_ms: float = 1500.0) -> None:
        """`most_ms` is about how long one contender's repeats may take together: slow ones are repeated less."""
        self.warm_up, self.repeats, self.most_ms = warm_up, repeats, most_ms
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._flush = torch.empty(max(2 * cache, 1 << 24) // 4, dtype=torch.float32, device="cuda")

    def compare(self, contenders: Mapping[str, Call]) -> dict[str, Timing]:
        """Each contender's timing; a round calls each of them once, so that drift meets them all.

        Before every call the second-level cache is overwritten, then the device is kept busy until the host has issued
        the call: what is measured is the device's time, gaps in which it waits for the host are not.
        """
        probes = {name: self._probe(call) for name, call in contenders.items()}
        slowest = max(device_ms for device_ms, _, _ in probes.values())
        repeats = int(min(self.repeats, max(5, self.most_ms / max(slowest, 1e-3))))
        events: dict[str, list[Any]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, call in contenders.items():
                events[name].append(self._measure(call, head_start_ms=2 * probes[name][1]))
        torch.cuda.synchronize()
        return {
            name: Timing(
                quantiles([start.elapsed_time(end) for start, end in pairs]), probes[name][1], probes[name][2], repeats
            )
            for name, pairs in events.items()
        }

    def _probe(self, call: Call) -> tuple[float, float, int]:
        """Milliseconds on the device, on the host, peak bytes; the warm-up included."""
        for _ in range(self.warm_up):
            call()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        kept = call()
        host_ms = (time.perf_counter() - start) * 1e3
        torch.cuda.synchronize()
        device_ms = (time.perf_counter() - start) * 1e3
        del kept
        return device_ms, host_ms, torch.cuda.max_memory_allocated() - before

    def _measure(self, call: Call, *, head_start_ms: float) -> tuple[Any, Any]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(int(max(head_start_ms, LEAST_HEAD_START_MS) * CYCLES_PER_MS))
        start.record()
        call()
        end.record()
        return start, end


class NoTimer:
    """Calls each contender once, measures nothing: what the smoke run uses."""

    measures = False

    def compare(self, contenders: Mapping[str, Call]) -> dict[str, Timing]:
        """Nothing, after a call of each."""
        for call in contenders.values():
            call()
        return {}
