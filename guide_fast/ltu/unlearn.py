"""Latent target unlearning: from a teacher to a student without the person."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from guide_fast.config import LtuConfig
from guide_fast.errors import DivergedError
from guide_fast.ltu.bank import Bank
from guide_fast.ltu.loop import Confirm, Loop
from guide_fast.ltu.population import Population, sample_population
from guide_fast.ltu.precision import LOSS_SCALE, fitting, half_blocks, largest_activations, set_half
from guide_fast.ltu.preserve import Elastic, TrustRegion, fisher_information
from guide_fast.ltu.schedule import budget_of, candidate_layers, choose_by_budget, choose_by_saliency, layer_size
from guide_fast.ltu.state import LoopState
from guide_fast.ltu.step import Step, compiled_losses
from guide_fast.ltu.student import Student, layer_gradients
from guide_fast.ltu.switches import Switches, arranged, make_optimizer, settle
from guide_fast.ltu.terms import AS_EVER, Networks, Seeing, observe
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent
from guide_fast.randomness import stream
from guide_fast.resumption import saving

SALIENCY_BYSTANDERS = 4


@dataclass(frozen=True)
class Unlearned:
    """The student with what happened on the way."""

    generator: Generator
    layers: tuple[str, ...]
    steps: int
    stopped: str  # "reached", "confirmed" (by the judge), "steps", "diverged" (back at the last good step)
    curve: tuple[dict[str, float], ...]
    notes: tuple[str, ...] = ()  # what a reader of the result should know


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
    confirm: Confirm | None = None,
    progress: Progress = silent,
) -> Unlearned:
    """Make a copy of `teacher` render `w_u` as `w_t`, neighbours alike, everybody else as before.

    Loss per step: local + sum over `n_adjacent` adjacency pairs + `preservation` * sum over `n_global` pairs (GUIDE,
    section 3), or what `config.preserve` has in place of the last. All student images come from one pass, all teacher
    images from one pass (fixed ones are cached). Where memory runs out, passes get smaller, and `notes` say so.
    When the loop ends, be it by Ctrl-C, its state goes to `state_path`, from which `resume=True` continues. Steps end
    early once the loss network calls the person forgotten, with `confirm` once the judge agrees. Teacher, networks,
    bank lie on one device. Raises DivergedError when a loss is no longer finite, naming the term, with state and
    student (`last_good`) back at the last good step; UsageError when the image that the steps look at shows none of the
    layers, a switch cannot be on here, or the state was left by another request.
    """
    device = teacher.w_mean.device
    switches = settle(config, device)
    w_u, w_t = w_u.to(device), w_t.to(device)
    random = stream("population", config.seed)
    population = sample_population(teacher, samples=config.population, random=random)
    with ExitStack() as stack:
        stack.enter_context(arranged(teacher, networks, config))
        seeing, half = _looking(teacher, w_u, w_t, networks, bank, config, switches)
        set_half(cast(Any, teacher), half, half=True)
        stack.callback(set_half, cast(Any, teacher), half, half=False)
        with torch.no_grad():
            rendering = teacher.synthesis(torch.stack((w_t, w_u)), resolution=config.resolution)
            fixed = observe(rendering, networks, seeing=seeing)
        scale = LOSS_SCALE if half or seeing.half else 1.0
        step = Step(teacher, w_u, w_t, fixed[:1], fixed[1:], networks, bank, config, seeing, scale)
        asked, latents = step.described(), {"person's": w_u, "target's": w_t}
        state = LoopState.load(state_path, asked, latents) if resume and state_path is not None else None
        layers = state.layers if state else _choose(step, population, progress)
        student = Student(teacher, layers, population, ridge=config.ridge)
        student.half = half
        if config.warm_start:
            student.send(w_u, w_t)
        groups = student.trainable(rank=config.rank, seed=config.seed, restrict=config.restrict_backward)
        parameters = {name: p for group in groups.values() for name, p in group.items()}
        optimizer = make_optimizer(list(parameters.values()), config)
        state = state or LoopState(layers, request=asked, latents=latents)
        extra = _elastic(student, parameters, step) if config.preserve == "ewc" else None
        trust = TrustRegion(groups, config.trust) if config.preserve == "trust_region" else None
        if switches.compiled:
            step = replace(step, compiled={"losses": compiled_losses(step)})
        state.restore(parameters, optimizer)
        loop = Loop(
            step,
            student.generator,
            parameters,
            optimizer,
            state,
            graphed=switches.cuda_graph,
            extra=extra,
            trust=trust,
            confirm=confirm if config.confirm else None,
        )

        def save() -> None:
            if state_path is not None:
                state.save(state_path, parameters, optimizer)

        try:
            with saving(save):  # after the last step too: what follows (evaluation) can be interrupted as well
                loop.run(progress, save)
        except DivergedError as error:
            error.last_good = _unlearned(student, state, "diverged")
            raise
        return _unlearned(student, state, loop.stopped)


def _unlearned(student: Student, state: LoopState, stopped: str) -> Unlearned:
    return Unlearned(student.finish(), state.layers, state.step, stopped, tuple(state.curve), tuple(state.notes))


def _looking(
    teacher: Generator,
    w_u: Tensor,
    w_t: Tensor,
    networks: Networks,
    bank: Bank,
    config: LtuConfig,
    switches: Switches,
) -> tuple[Seeing, frozenset[str]]:
    """How the networks look, which of the teacher's blocks compute in float16: those whose activations allow it."""
    side = torch.cuda.Stream(w_u.device) if switches.identity_stream else None
    if not switches.half:
        return (AS_EVER if side is None else Seeing(identity_stream=side)), frozenset()
    ws = torch.cat((w_u[None], w_t[None], bank.ws[:2]))
    frozen = {"identity": networks.identity, "perceptual": networks.perceptual}
    blocks = half_blocks(cast(Any, teacher))

    def run() -> None:
        observe(teacher.synthesis(ws, resolution=config.resolution), networks)

    fit = fitting(largest_activations(run, {**blocks, **frozen}))
    return Seeing(fit & frozen.keys(), side), fit & blocks.keys()


def _elastic(student: Student, parameters: Any, step: Step) -> Elastic:
    config = step.config
    fisher = fisher_information(
        student.generator,
        parameters,
        step.bank,
        step.networks,
        people=config.fisher,
        resolution=config.resolution,
        seed=config.seed,
    )
    return Elastic(parameters, fisher, config.ewc)


def _choose(step: Step, population: Population, progress: Progress) -> tuple[str, ...]:
    """Layers that may move; "auto" and "budget=N" weigh what an Adam step gains against what it does to bystanders.

    The gain is the L1 norm of the forget gradient. At the teacher the global term is at its minimum, so the harm is
    taken from the gradient of what must not happen: bystanders moving by the person's own offset.
    With a warm start only modulation layers compete for "auto": they are what the closed form solves, and letting
    convolutions follow by gradient too moved bystanders further in trials.
    """
    config = step.config
    layers = candidate_layers(step.teacher, config.layers, resolution=config.resolution)
    budget = budget_of(config.layers)
    if config.layers != "auto" and budget is None:
        return layers
    if config.warm_start and budget is None:
        layers = tuple(layer for layer in layers if layer.endswith(".modulation"))
    probe = Student(step.teacher, layers, population, ridge=config.ridge)
    groups = probe.trainable()
    offset = step.w_t - step.w_u
    person = step.moving_loss(probe.generator, step.w_u[None], step.w_t[None])
    forget = layer_gradients(groups, person)
    harms = dict.fromkeys(layers, 0.0)
    bystanders = step.bank.ws[:SALIENCY_BYSTANDERS]
    for done, ws in enumerate(bystanders):
        progress("choosing layers", done, len(bystanders), {})
        gradients = layer_gradients(groups, step.moving_loss(probe.generator, ws[None], ws[None] + offset))
        for layer in layers:
            harms[layer] += float((forget[layer].sign() @ gradients[layer]).square())
    progress("choosing layers", len(bystanders), len(bystanders), {})
    gain = {layer: float(forget[layer].abs().sum()) for layer in layers}
    cost = {layer: harm**0.5 for layer, harm in harms.items()}
    if budget is None:
        return choose_by_saliency(gain, cost, keep=config.keep)
    sizes = {layer: layer_size(step.teacher, layer) for layer in layers}
    return choose_by_budget(gain, cost, sizes, budget=budget)
