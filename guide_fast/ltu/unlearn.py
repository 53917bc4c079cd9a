"""Latent target unlearning: the loop that turns a teacher into a student without the person."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from guide_fast.config import LtuConfig
from guide_fast.errors import GuideFastError
from guide_fast.ltu.bank import Bank
from guide_fast.ltu.population import Population, sample_population
from guide_fast.ltu.schedule import candidate_layers, choose_by_saliency
from guide_fast.ltu.state import LoopState
from guide_fast.ltu.student import Student, squared_gradients
from guide_fast.ltu.terms import Networks, Views, adjacency_offsets, observe, preservation, reconstruction
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

_STAGE = "unlearning"


@dataclass(frozen=True)
class Unlearned:
    """The student with what happened on the way."""

    generator: nn.Module
    layers: tuple[str, ...]
    steps: int
    stopped: str  # "reached", "steps"
    curve: tuple[dict[str, float], ...]
    seconds: dict[str, float] = field(default_factory=dict)  # choose, warm_start, steps


def unlearn(
    teacher: Generator,
    w_u: Tensor,  # [L, D]
    w_t: Tensor,  # [L, D]
    *,
    networks: Networks,
    bank: Bank,
    config: LtuConfig,
    state_path: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Unlearned:
    """Make a copy of `teacher` render `w_u` as `w_t`, neighbours alike, everybody else as before.

    Loss per step: local + sum over `n_adjacent` adjacency pairs + `preservation` * sum over `n_global` pairs (GUIDE,
    section 3). All student images come from one pass, all teacher images from one pass (fixed ones are cached).
    On KeyboardInterrupt the state goes to `state_path`, from which `resume=True` continues.
    Raises GuideFastError when the loss is no longer finite, naming the term.
    """
    started = time.perf_counter()
    random = torch.Generator().manual_seed(config.seed)
    population = sample_population(teacher, samples=config.population, random=random)
    with torch.no_grad():
        fixed = observe(teacher.synthesis(torch.stack((w_t, w_u)), resolution=config.resolution), networks)
    request = _Request(teacher, w_u, w_t, fixed[:1], fixed[1:], networks, bank, config)
    state = LoopState.load(state_path) if resume and state_path is not None else None
    layers = state.layers if state else _choose(request, population)
    chosen = time.perf_counter()
    student = Student(teacher, layers, population, ridge=config.ridge)
    if config.warm_start:
        student.send(w_u, w_t)
    parameters = {name: p for group in student.trainable().values() for name, p in group.items()}
    optimizer = torch.optim.Adam(list(parameters.values()), lr=config.lr)
    state = state or LoopState(layers)
    state.restore(parameters, optimizer)
    warm = time.perf_counter()
    stopped = "steps"
    try:
        progress(_STAGE, state.step, config.steps, {})
        while state.step < config.steps:
            values = request.step(student.generator, state.step, optimizer)
            state.step += 1
            state.curve.append(values)
            progress(_STAGE, state.step, config.steps, values)
            if _held(state.curve, config):
                stopped = "reached"
                break
    except KeyboardInterrupt:
        if state_path is not None:
            state.save(state_path, parameters, optimizer)
        raise
    seconds = {"choose": chosen - started, "warm_start": warm - chosen, "steps": time.perf_counter() - warm}
    return Unlearned(student.finish(), layers, state.step, stopped, tuple(state.curve), seconds)


@dataclass(frozen=True)
class _Request:
    """What stays the same over the steps."""

    teacher: Generator
    w_u: Tensor
    w_t: Tensor
    target: Views  # teacher at w_t, N = 1
    source: Views  # teacher at w_u, N = 1
    networks: Networks
    bank: Bank
    config: LtuConfig

    def step(self, student: nn.Module, index: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One optimisation step; everything random is drawn from (seed, index)."""
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + index + 1)
        offsets = self._offsets(random)
        kept = torch.randperm(len(self.bank), generator=random)[: self.config.n_global]
        adjacent = slice(1, 1 + len(offsets))
        seen = self._student_views(student, offsets, kept)
        targets = self._targets(offsets)
        forget = reconstruction(seen[: adjacent.stop], targets, self.networks, self.config).sum()
        keep = preservation(seen[adjacent.stop :], self.bank.views[kept], self.networks, self.config).sum()
        loss = forget + self.config.preservation * keep
        if not torch.isfinite(loss):
            term = "forgetting" if not torch.isfinite(forget) else "preservation"
            raise GuideFastError(f"the {term} loss became {loss.item()} at step {index}; lower ltu.lr (it is {self.config.lr})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        similarity = self.networks.identity.similarity
        return {
            "step": index,
            "loss": loss.item(),
            "forget_loss": forget.item(),
            "keep_loss": keep.item(),
            "forgotten": similarity(seen.identity[:1], self.source.identity).item(),
            "retained": similarity(seen.identity[adjacent.stop :], self.bank.views.identity[kept]).mean().item(),
        }

    def forget_loss(self, student: nn.Module) -> Tensor:
        """Local and adjacency terms, for the saliency."""
        offsets = self._offsets(torch.Generator().manual_seed(self.config.seed))
        seen = self._student_views(student, offsets, torch.empty(0, dtype=torch.long))
        return reconstruction(seen, self._targets(offsets), self.networks, self.config).sum()

    def keep_loss(self, student: nn.Module) -> Tensor:
        """Global term on the first people of the bank, for the saliency."""
        kept = torch.arange(min(len(self.bank), 2 * max(1, self.config.n_global)))
        seen = observe(student.synthesis(self.bank.ws[kept], resolution=self.config.resolution), self.networks)
        return preservation(seen, self.bank.views[kept], self.networks, self.config).sum()

    def _offsets(self, random: torch.Generator) -> Tensor:
        count = self.config.n_adjacent
        with torch.no_grad():
            w_r = self.teacher.mapping(torch.randn(count, self.teacher.z_dim, generator=random))
        return adjacency_offsets(self.w_u, w_r, self.config.radius * torch.rand(count, generator=random))

    def _student_views(self, student: nn.Module, offsets: Tensor, kept: Tensor) -> Views:
        ws = torch.cat((self.w_u[None], self.w_u + offsets, self.bank.ws[kept]))
        return observe(student.synthesis(ws, resolution=self.config.resolution), self.networks)

    def _targets(self, offsets: Tensor) -> Views:
        if not len(offsets):
            return self.target
        with torch.no_grad():
            rendering = self.teacher.synthesis(self.w_t + offsets, resolution=self.config.resolution)
            return Views.concatenate((self.target, observe(rendering, self.networks)))


def _choose(request: _Request, population: Population) -> tuple[str, ...]:
    """Layers that may move; "auto" measures the forget gradient at the teacher, the preserve gradient past the warm start.

    At the teacher itself the global term is at its minimum, so its gradient says nothing there.
    """
    config = request.config
    layers = candidate_layers(request.teacher, config.layers)
    if config.layers != "auto":
        return layers
    probe = Student(request.teacher, layers, population, ridge=config.ridge)
    groups = probe.trainable()
    forget = squared_gradients(groups, request.forget_loss(probe.generator))
    probe.send(request.w_u, request.w_t)
    preserve = squared_gradients(groups, request.keep_loss(probe.generator))
    return choose_by_saliency(forget, preserve, keep=config.keep)


def _held(curve: list[dict[str, float]], config: LtuConfig) -> bool:
    recent = curve[-config.hold :]
    return len(recent) == config.hold and all(values["forgotten"] <= config.reached for values in recent)
