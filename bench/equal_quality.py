"""Decides whether a baseline's student is as good as ours: the same judge, the same people, the same images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guide_fast.artifacts import Latent
from guide_fast.config import EvaluateConfig
from guide_fast.evaluate import evaluate
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork

MEASURED = ("forgotten", "forgotten_person", "retained", "retained_p05", "fd_pre", "fd_pre_n")


@dataclass(frozen=True)
class Judges:
    """What looks at the results; the losses use none of them but `perceptual`, which measures fd_pre."""

    judge: IdentityNetwork
    third: IdentityNetwork
    perceptual: PerceptualNetwork


class EqualQuality:
    """`good_enough` for a race: is the person as forgotten as by ours, is everybody else kept as well?

    The person's own image is looked at after every step. Only when the judge finds it no more similar than ours (but
    for `noise`) is everybody evaluated, as ours was; when that fails, again `recheck` steps later. `measured` is the
    last such evaluation with the step it belongs to.
    """

    def __init__(
        self,
        base: Generator,
        source: Latent,
        ours: Mapping[str, float],  # MEASURED
        *,
        judges: Judges,
        config: EvaluateConfig,
        noise: float,
        recheck: int,
        cache_dir: Path | None,
    ) -> None:
        self._base, self._source, self._ours = base, source, ours
        self._judges, self._config, self._cache_dir = judges, config, cache_dir
        self._noise, self._recheck = noise, recheck
        self._before = self._embedding(base)
        self.measured: dict[str, float] = {}
        self._measured_at = -recheck

    def __call__(self, student: Any, steps: int) -> tuple[bool, dict[str, float]]:
        """Whether `student` is good enough, what the judge saw."""
        with as_shipped(student):
            similarity = self._judges.judge.similarity(self._before, self._embedding(student)).item()
        seen = {"forgotten_person": similarity}
        if similarity > self._ours["forgotten_person"] + self._noise or steps - self._measured_at < self._recheck:
            return False, seen
        measured = self.measure(student, steps)
        forgotten = measured["forgotten"] <= self._ours["forgotten"] + self._noise
        return forgotten and measured["retained"] >= self._ours["retained"], seen | measured

    def measure(self, student: Any, steps: int) -> dict[str, float]:
        """Everybody, as ours was measured; of the same step, only once."""
        if self._measured_at != steps or not self.measured:
            with as_shipped(student):
                metrics = evaluate(
                    self._base,
                    student,
                    self._source,
                    judge=self._judges.judge,
                    third=self._judges.third,
                    perceptual=self._judges.perceptual,
                    config=self._config,
                    cache_dir=self._cache_dir,
                ).metrics
            self.measured, self._measured_at = {name: metrics[name] for name in MEASURED}, steps
        return self.measured

    def _embedding(self, generator: Any) -> torch.Tensor:
        with torch.inference_mode():
            return self._judges.judge.embed(generator.synthesis(self._source.w[None]).framed.clamp(-1, 1))


@contextlib.contextmanager
def as_shipped(student: Any) -> Iterator[None]:
    """`student` in eval mode on the fastest kernels, which is off the clock; afterwards as it was."""
    impl, training = getattr(student, "impl", None), student.training
    student.eval()
    if impl is not None:
        student.impl = "auto"
    try:
        yield
    finally:
        student.train(training)
        if impl is not None:
            student.impl = impl
