"""Runs a baseline step by step until it is as good as ours, or its time is over.

Only steps are on the clock; what the judge looks at between them is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from guide_fast.errors import DivergedError

REACHED, TIME, STEPS = "reached", "time", "steps"


class Contender(Protocol):
    """A loop that forgets one person at a time."""

    name: str
    student: Any  # the generator so far
    compile_seconds: float

    def begin(self, w_u: Tensor, seed: int) -> None:
        """Start anew for the person at `w_u` [L, D]."""
        ...

    def step(self) -> dict[str, float]:
        """One step; its losses."""
        ...


@dataclass(frozen=True)
class Race:
    """How far a baseline came."""

    seconds: float
    steps: int
    stopped: str  # REACHED; TIME: more than was allowed; STEPS: the method's own end
    step_seconds: list[float]
    checks: list[dict[str, float]] = field(default_factory=list)  # what the judge saw after steps

    @property
    def censored(self) -> bool:
        """Whether the baseline would have needed longer: `seconds` is then a lower bound."""
        return self.stopped != REACHED


def race(
    contender: Contender,
    w_u: Tensor,  # [L, D]
    seed: int,
    *,
    good_enough: Callable[[Any, int], tuple[bool, dict[str, float]]],  # (student, steps) -> as good as ours, what it is
    allowed_seconds: float,
    most_steps: int,
    now: Callable[[], float] = time.perf_counter,
    tick: Callable[[int, float], None] = lambda steps, seconds: None,
) -> Race:
    """Step until good enough, the first step past `allowed_seconds`, or `most_steps`.

    Starting for the person is on the clock, as it is in ours; compiling is not. Raises DivergedError when a loss is no
    longer finite.
    """
    since = now()
    contender.begin(w_u, seed)
    seconds = now() - since
    taken: list[float] = []
    checks: list[dict[str, float]] = []
    while len(taken) < most_steps:
        since = now()
        losses = contender.step()
        taken.append(now() - since)
        seconds += taken[-1]
        if not abs(losses["loss"]) < float("inf"):
            raise DivergedError(f"{contender.name} diverged at step {len(taken)}: its loss is {losses['loss']}")
        reached, seen = good_enough(contender.student, len(taken))
        checks.append({"step": len(taken), "seconds": seconds} | losses | seen)
        tick(len(taken), seconds)
        if reached or seconds >= allowed_seconds:
            return Race(seconds, len(taken), REACHED if reached else TIME, taken, checks)
    return Race(seconds, len(taken), STEPS, taken, checks)
