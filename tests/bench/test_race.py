"""A baseline is stopped when it is as good as ours, or when its time is over: then its time is a lower bound."""

from __future__ import annotations

from typing import Any

import pytest

from guide_fast.bench.race import Race, race
from guide_fast.errors import DivergedError


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class Steps:
    """Takes `seconds` a step, after 5 to begin; gets better by 1 each time."""

    name, compile_seconds = "steps", 100.0

    def __init__(self, clock: Clock, seconds: float, losses: float = 1.0) -> None:
        self.clock, self.seconds, self.losses = clock, seconds, losses
        self.student = 0

    def begin(self, w_u: Any, seed: int) -> None:
        self.clock.time += 5
        self.student = 0

    def step(self) -> dict[str, float]:
        self.clock.time += self.seconds
        self.student += 1
        return {"loss": self.losses}


def run(seconds: float, *, good_at: int, allowed: float = 1000.0, most: int = 20, losses: float = 1.0) -> Race:
    clock = Clock()

    def good_enough(student: int, steps: int) -> tuple[bool, dict[str, float]]:
        clock.time += 50  # the judge is off the clock
        return student >= good_at, {"forgotten_person": 1 - student / 10}

    return race(
        Steps(clock, seconds, losses),
        None,  # type: ignore[arg-type]
        0,
        good_enough=good_enough,
        allowed_seconds=allowed,
        most_steps=most,
        now=clock,
    )


def test_time_until_good_enough_leaves_out_judge_and_compiler() -> None:
    ran = run(10, good_at=3)
    assert (ran.seconds, ran.steps, ran.stopped, ran.censored) == (35.0, 3, "reached", False)
    assert [check["seconds"] for check in ran.checks] == [15.0, 25.0, 35.0]
    assert ran.checks[1]["forgotten_person"] == pytest.approx(0.8)


def test_first_step_past_the_allowed_time_ends_it_as_a_lower_bound() -> None:
    ran = run(10, good_at=9, allowed=31)
    assert (ran.seconds, ran.steps, ran.stopped, ran.censored) == (35.0, 3, "time", True)


def test_reaching_it_with_the_last_step_counts_as_reached() -> None:
    assert not run(10, good_at=3, allowed=31).censored


def test_methods_own_end_is_a_lower_bound_too() -> None:
    ran = run(1, good_at=50, most=4)
    assert (ran.steps, ran.stopped, ran.censored) == (4, "steps", True)


def test_divergence_is_no_time() -> None:
    with pytest.raises(DivergedError, match="steps diverged at step 1: its loss is nan"):
        run(1, good_at=3, losses=float("nan"))
