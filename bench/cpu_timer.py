"""Times calls on a CPU by the clock: warmed up, contenders in turn."""

from __future__ import annotations

import time
from collections.abc import Mapping

from guide_fast.bench.record import quantiles
from guide_fast.bench.timer import Call, Timing


class CpuTimer:
    """Times contenders against each other; memory is not measured."""

    measures = True

    def __init__(self, *, warm_up: int = 2, repeats: int = 15, most_ms: float = 3000.0) -> None:
        """`most_ms` is about how long one contender's repeats may take together: slow ones are repeated less."""
        self.warm_up, self.repeats, self.most_ms = warm_up, repeats, most_ms

    def compare(self, contenders: Mapping[str, Call]) -> dict[str, Timing]:
        """Each contender's timing; a round calls each of them once, so that drift meets them all."""
        probes = {name: self._probe(call) for name, call in contenders.items()}
        repeats = int(min(self.repeats, max(3, self.most_ms / max(*probes.values(), 1e-3))))
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, call in contenders.items():
                taken[name].append(_milliseconds(call))
        return {name: Timing(quantiles(values), probes[name], None, repeats) for name, values in taken.items()}

    def _probe(self, call: Call) -> float:
        for _ in range(self.warm_up):
            call()
        return _milliseconds(call)


def _milliseconds(call: Call) -> float:
    since = time.perf_counter()
    kept = call()
    taken = (time.perf_counter() - since) * 1e3
    del kept  # freed off the clock
    return taken
