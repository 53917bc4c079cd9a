"""Latent target unlearning: the loop that turns a teacher into a student without the person."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast.artifacts import rendering_sha256
from guide_fast.config import LtuConfig
from guide_fast.errors import DivergedError
from guide_fast.kernels import FusedAdam
from guide_fast.ltu.bank import Bank
from guide_fast.ltu.population import Population, sample_population
from guide_fast.ltu.schedule import candidate_layers, choose_by_saliency
from guide_fast.ltu.state import LoopState
from guide_fast.ltu.student import Student, layer_gradients
from guide_fast.ltu.terms import Networks, Views, adjacency_offsets, observe, preservation, reconstruction
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream
from guide_fast.resumption import saving, uninterrupted

_STAGE = "unlearning"
SALIENCY_BYSTANDERS = 4


@dataclass(frozen=True)
class Unlearned:
    """The student with what happened on the way."""

    generator: Generator
    layers: tuple[str, ...]
    steps: int
    stopped: str  # "reached", "steps"
    curve: tuple[dict[str, float], ...]


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
    When the loop ends, be it by Ctrl-C, its state goes to `state_path`, from which `resume=True` continues.
    Raises DivergedError when the loss is no longer finite, naming the term; UsageError when the image that the steps
    look at shows none of the layers, or the state was left by another request.
    """
    random = stream("population", config.seed)
    population = sample_population(teacher, samples=config.population, random=random)
    with torch.no_grad():
        fixed = observe(teacher.synthesis(torch.stack((w_t, w_u)), resolution=config.resolution), networks)
    request = _Request(teacher, w_u, w_t, fixed[:1], fixed[1:], networks, bank, config)
    asked, latents = request.described(), {"person's": w_u, "target's": w_t}
    state = LoopState.load(state_path, asked, latents) if resume and state_path is not None else None
    layers = state.layers if state else _choose(request, population, progress)
    student = Student(teacher, layers, population, ridge=config.ridge)
    if config.warm_start:
        student.send(w_u, w_t)
    parameters = {name: p for group in student.trainable().values() for name, p in group.items()}
    optimizer = FusedAdam(list(parameters.values()), lr=config.lr)
    state = state or LoopState(layers, request=asked, latents=latents)
    state.restore(parameters, optimizer)

    def save() -> None:
        if state_path is not None:
            state.save(state_path, parameters, optimizer)

    with saving(save):  # after the last step too: what follows (evaluation) can be interrupted as well
        progress(_STAGE, state.step, config.steps, {})
        while state.step < config.steps and not _held(state.curve, config):
            values = request.gradients(student.generator, state.step, optimizer)
            with uninterrupted():  # a step that moved the weights but was not counted would be taken again
                optimizer.step()
                state.step += 1
                state.curve.append(values)
            progress(_STAGE, state.step, config.steps, values)
    stopped = "reached" if _held(state.curve, config) else "steps"
    return Unlearned(student.finish(), layers, state.step, stopped, tuple(state.curve))


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

    def described(self) -> dict[str, Any]:
        """What makes a state fit this request, in plain values; the latents are compared apart."""
        settings = {f"ltu.{key}": value for key, value in asdict(self.config).items()}
        generator = rendering_sha256(self.teacher, self.config.resolution)
        return {"generator": generator, **self.networks.names, "bank": len(self.bank), **settings}

    def gradients(self, student: Generator, index: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """The gradients of step `index`, left with the parameters; everything random is drawn from (seed, index)."""
        random = stream("step", self.config.seed, index)
        offsets = self._offsets(random)
        kept = torch.randperm(len(self.bank), generator=random)[: self.config.n_global]
        adjacent = slice(1, 1 + len(offsets))
        cameras = self.teacher.cameras
        camera = None if cameras is None else cameras.draw(random)  # [1, 25], one for all images of the step
        seen = self._student_views(student, offsets, kept, camera)
        targets, source, bystanders = self._teacher_views(offsets, kept, camera)
        forget = reconstruction(seen[: adjacent.stop], targets, self.networks, self.config).sum()
        keep = preservation(seen[adjacent.stop :], bystanders, self.networks, self.config).sum()
        loss = forget + self.config.preservation * keep
        if not torch.isfinite(loss):
            term = "forgetting" if not torch.isfinite(forget) else "preservation"
            raise DivergedError(
                f"the {term} loss became {loss.item()} at step {index}; lower ltu.lr (it is {self.config.lr})"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        similarity = self.networks.identity.similarity
        return {
            "step": index,
            "loss": loss.item(),
            "forget_loss": forget.item(),
            "keep_loss": keep.item(),
            "forgotten": similarity(seen.identity[:1], source.identity).item(),
            "retained": similarity(seen.identity[adjacent.stop :], bystanders.identity).mean().item(),
        }

    def moving_loss(self, student: Generator, ws: Tensor, features_from: Tensor) -> Tensor:
        """Loss of rendering `ws` [N, L, D] as the teacher renders `features_from` [N, L, D]; for the saliency."""
        resolution = self.config.resolution
        seen = observe(student.synthesis(ws, resolution=resolution), self.networks)
        with torch.no_grad():
            wanted = observe(self.teacher.synthesis(features_from, resolution=resolution), self.networks)
        return reconstruction(seen, wanted, self.networks, self.config).sum()

    def _offsets(self, random: torch.Generator) -> Tensor:
        count = self.config.n_adjacent
        with torch.no_grad():
            w_r = self.teacher.mapping(torch.randn(count, self.teacher.z_dim, generator=random))
        return adjacency_offsets(self.w_u, w_r, self.config.radius * torch.rand(count, generator=random))

    def _student_views(self, student: Generator, offsets: Tensor, kept: Tensor, camera: Tensor | None) -> Views:
        ws = torch.cat((self.w_u[None], self.w_u + offsets, self.bank.ws[kept]))
        return observe(student.synthesis(ws, camera, resolution=self.config.resolution), self.networks)

    def _teacher_views(self, offsets: Tensor, kept: Tensor, camera: Tensor | None) -> tuple[Views, Views, Views]:
        """The targets [1 + n_adjacent], the person [1], the bystanders; known but for neighbours if no camera moves."""
        if camera is None:
            assert self.bank.views is not None
            return self._targets(offsets), self.source, self.bank.views[kept]
        with torch.no_grad():
            ws = torch.cat((self.w_t[None], self.w_t + offsets, self.w_u[None], self.bank.ws[kept]))
            rendering = self.teacher.synthesis(ws, camera, resolution=self.config.resolution)
            seen, person = observe(rendering, self.networks), 1 + len(offsets)
        return seen[:person], seen[person : person + 1], seen[person + 1 :]

    def _targets(self, offsets: Tensor) -> Views:
        if not len(offsets):
            return self.target
        with torch.no_grad():
            rendering = self.teacher.synthesis(self.w_t + offsets, resolution=self.config.resolution)
            return Views.concatenate((self.target, observe(rendering, self.networks)))


def _choose(request: _Request, population: Population, progress: Progress) -> tuple[str, ...]:
    """Layers that may move; "auto" weighs, per layer, what an Adam step gains against what it does to bystanders.

    The gain is the L1 norm of the forget gradient. At the teacher the global term is at its minimum, so the harm is
    taken from the gradient of what must not happen: bystanders moving by the person's own offset.
    With a warm start only modulation layers compete: they are what the closed form solves, and letting
    convolutions follow by gradient too moved bystanders further in trials.
    """
    config = request.config
    layers = candidate_layers(request.teacher, config.layers, resolution=config.resolution)
    if config.layers != "auto":
        return layers
    if config.warm_start:
        layers = tuple(layer for layer in layers if layer.endswith(".modulation"))
    probe = Student(request.teacher, layers, population, ridge=config.ridge)
    groups = probe.trainable()
    offset = request.w_t - request.w_u
    person = request.moving_loss(probe.generator, request.w_u[None], request.w_t[None])
    forget = layer_gradients(groups, person)
    harms = dict.fromkeys(layers, 0.0)
    bystanders = request.bank.ws[:SALIENCY_BYSTANDERS]
    for done, ws in enumerate(bystanders):
        progress("choosing layers", done, len(bystanders), {})
        gradients = layer_gradients(groups, request.moving_loss(probe.generator, ws[None], ws[None] + offset))
        for layer in layers:
            harms[layer] += float((forget[layer].sign() @ gradients[layer]).square())
    progress("choosing layers", len(bystanders), len(bystanders), {})
    gain = {layer: float(forget[layer].abs().sum()) for layer in layers}
    return choose_by_saliency(gain, {layer: harm**0.5 for layer, harm in harms.items()}, keep=config.keep)


def _held(curve: list[dict[str, float]], config: LtuConfig) -> bool:
    recent = curve[-config.hold :]
    return len(recent) == config.hold and all(values["forgotten"] <= config.reached for values in recent)
