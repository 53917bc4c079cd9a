"""One step of latent target unlearning: its draws, its loss, its gradients, the numbers it reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.artifacts import rendering_sha256
from guide_fast.config import LtuConfig
from guide_fast.errors import GuideFastError
from guide_fast.ltu.bank import Bank
from guide_fast.ltu.terms import (
    AS_EVER,
    KINDS,
    ROLES,
    Networks,
    Seeing,
    Views,
    adjacency_offsets,
    observe,
    preservation_parts,
    reconstruction,
    reconstruction_parts,
)
from guide_fast.models.generator import Generator
from guide_fast.randomness import stream

# What a step reports, in the order of its one tensor; the parts of the loss by role and kind follow.
NUMBERS = ("loss", "forget_loss", "keep_loss", "forgotten", "retained", "gradient")

Extra = Callable[[], Tensor]  # adds its own gradients, returns its share of the loss []


@dataclass(frozen=True)
class Draws:
    """Everything random in one step, drawn outside of it."""

    offsets: Tensor  # [A, L, D], from the person to neighbours
    kept: Tensor  # [G], places in the bank
    camera: Tensor | None  # [1, 25], one for all images of the step

    def __len__(self) -> int:
        return 1 + len(self.offsets) + len(self.kept)


@dataclass(frozen=True)
class Step:
    """What stays the same over the steps.

    A step has a row for each student image: the person, neighbours, bystanders. `rows` of them at a time go through one
    student pass with at most one teacher pass; the gradients of all are summed.
    """

    teacher: Generator
    w_u: Tensor  # [L, D]
    w_t: Tensor  # [L, D]
    target: Views  # teacher at w_t, N = 1
    source: Views  # teacher at w_u, N = 1
    networks: Networks
    bank: Bank
    config: LtuConfig
    seeing: Seeing = AS_EVER
    loss_scale: float = 1.0  # a power of two, so that gradients in float16 do not underflow
    compiled: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Images of one step."""
        kept = min(self.config.n_global, len(self.bank)) if self.config.preserve == "pairs" else 0
        return 1 + self.config.n_adjacent + kept

    def described(self) -> dict[str, Any]:
        """What makes a state fit this request, in plain values; the latents are compared apart."""
        settings = {f"ltu.{key}": value for key, value in asdict(self.config).items()}
        generator = rendering_sha256(self.teacher, self.config.resolution)
        return {"generator": generator, **self.networks.names, "bank": len(self.bank), **settings}

    def draw(self, index: int) -> Draws:
        """The draws of step `index`, from (seed, index) alone, on the generator's device without waiting for it."""
        config, random = self.config, stream("step", self.config.seed, index)
        z = torch.randn(config.n_adjacent, self.teacher.z_dim, generator=random)
        distance = config.radius * torch.rand(config.n_adjacent, generator=random)
        kept = torch.randperm(len(self.bank), generator=random)[: config.n_global]
        if config.preserve != "pairs":
            kept = kept[:0]
        cameras = self.teacher.cameras
        camera = None if cameras is None else self._there(cameras.draw(random))
        with torch.no_grad():
            offsets = adjacency_offsets(self.w_u, self.teacher.mapping(self._there(z)), self._there(distance))
        return Draws(offsets, self._there(kept), camera)

    def gradients(
        self,
        student: Any,  # a Generator that is a Module, too
        parameters: list[nn.Parameter],
        draws: Draws,
        *,
        rows: int,
        extra: Extra | None = None,
    ) -> Tensor:
        """Leave the gradients of one step with `parameters`; returns its numbers [15] without reading them.

        Nothing in here waits for the device, so that a CUDA graph can hold all of it.
        """
        student.zero_grad(set_to_none=True)
        parts = self.w_u.new_zeros(len(ROLES), len(KINDS))
        forgotten, retained = self.w_u.new_zeros(()), self.w_u.new_zeros(())
        losses = self.compiled.get("losses", self.losses)
        for start in range(0, len(draws), rows):
            loss, found, similar = losses(student, draws, start, min(start + rows, len(draws)))
            (loss * self.loss_scale).backward()
            parts = parts + found
            forgotten, retained = forgotten + similar[0], retained + similar[1]
        if not self.config.frozen:
            for network in (self.networks.identity, self.networks.perceptual):
                network.zero_grad(set_to_none=True)
        grads = [p.grad for p in parameters if p.grad is not None]
        if self.loss_scale != 1:
            torch._foreach_mul_(grads, 1 / self.loss_scale)
        forget, keep = parts[:2].sum(), parts[2].sum()
        if extra is not None:
            keep = keep + extra()
            loss = forget + keep
        else:
            loss = forget + self.config.preservation * keep
        norms = torch.stack(torch._foreach_norm(grads)) if grads else self.w_u.new_zeros(1)
        bystanders = max(len(draws.kept), 1)
        numbers = torch.stack((loss, forget, keep, forgotten, retained / bystanders, norms.norm()))
        return torch.cat((numbers, parts.flatten())).detach()

    def losses(self, student: Generator, draws: Draws, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the rows `start` to `stop`: what is differentiated [], the parts [3, 3], the similarities [2] summed."""
        config, people = self.config, 1 + len(draws.offsets)
        others = torch.cat((self.w_u + draws.offsets, self.bank.ws[draws.kept]))
        ws = torch.cat((self.w_u[None], others))[start:stop]
        seen = observe(
            student.synthesis(ws, draws.camera, resolution=config.resolution), self.networks, seeing=self.seeing
        )
        wanted, source, bystanders = self._teacher_views(draws, start, stop)
        forget = max(min(stop, people) - start, 0)
        similarity = self.networks.identity.similarity
        zero = self.w_u.new_zeros(())
        parts = [zero] * (len(ROLES) * len(KINDS))
        loss, forgotten, retained = zero, zero, zero
        if forget:
            assert wanted is not None
            kinds = reconstruction_parts(seen[:forget], wanted, self.networks, config)
            loss = loss + (kinds[0] + kinds[1] + kinds[2]).sum()
            local = 1 - min(start, 1)  # how many of these rows are the person
            for i, kind in enumerate(kinds):
                parts[i], parts[len(KINDS) + i] = kind[:local].sum(), kind[local:].sum()
        if start == 0:
            assert source is not None
            forgotten = similarity(seen.identity[:1], source.identity)[0]
        if len(ws) > forget:
            assert bystanders is not None
            kinds = preservation_parts(seen[forget:], bystanders, self.networks, config)
            loss = loss + config.preservation * (kinds[1] + kinds[2]).sum()
            for i, kind in enumerate(kinds):
                parts[2 * len(KINDS) + i] = kind.sum()
            retained = similarity(seen.identity[forget:], bystanders.identity).sum()
        return loss, torch.stack(parts).detach().view(len(ROLES), -1), torch.stack((forgotten, retained)).detach()

    def moving_loss(self, student: Generator, ws: Tensor, features_from: Tensor) -> Tensor:
        """Loss of rendering `ws` [N, L, D] as the teacher renders `features_from` [N, L, D]; for the saliency."""
        resolution = self.config.resolution
        seen = observe(student.synthesis(ws, resolution=resolution), self.networks)
        with torch.no_grad():
            wanted = observe(self.teacher.synthesis(features_from, resolution=resolution), self.networks)
        return reconstruction(seen, wanted, self.networks, self.config).sum()

    @torch.no_grad()
    def _teacher_views(self, draws: Draws, start: int, stop: int) -> tuple[Views | None, Views | None, Views | None]:
        """Of the rows `start` to `stop`: the targets, the person, the bystanders; what is not known from one pass.

        Where a camera moves, nothing is known; else all but the neighbours, unless the settings say otherwise.
        """
        people, still = 1 + len(draws.offsets), draws.camera is None
        segments = (
            (0, 1, self.target if still and self.config.cached_target else None, self.w_t[None]),
            (1, people, None, self.w_t + draws.offsets),
            (people, len(draws), self._banked(draws.kept) if still else None, self.bank.ws[draws.kept]),
        )
        pieces: list[Views | None] = []
        asked: list[Tensor] = []
        for first, last, known, ws in segments:
            span = slice(max(start - first, 0), max(min(stop, last) - first, 0))
            if span.stop <= span.start:
                continue
            pieces.append(None if known is None else known[span])
            if known is None:
                asked.append(ws[span])
        if start == 0 and not still:
            asked.append(self.w_u[None])
        rendered = iter(self._rendered(asked, draws.camera))
        found = [next(rendered) if piece is None else piece for piece in pieces]
        source = None if start else self.source if still else next(rendered)
        bystanders = found.pop() if stop > people else None
        return Views.concatenate(found) if found else None, source, bystanders

    def _banked(self, kept: Tensor) -> Views | None:
        views = self.bank.views  # None where cameras move
        return views[kept] if views is not None and self.config.banked else None

    def _rendered(self, asked: list[Tensor], camera: Tensor | None) -> Iterator[Views]:
        """Views of each of `asked` [n, L, D], all from one teacher pass."""
        if not asked:
            return
        rendering = self.teacher.synthesis(torch.cat(asked), camera, resolution=self.config.resolution)
        seen, start = observe(rendering, self.networks, seeing=self.seeing), 0
        for ws in asked:
            yield seen[start : start + len(ws)]
            start += len(ws)

    def _there(self, value: Tensor) -> Tensor:
        """On the generator's device; pinned memory lets the copy go on while the host does."""
        if self.w_u.device.type != "cuda":
            return value
        return value.pin_memory().to(self.w_u.device, non_blocking=True)


class Reading:
    """The numbers of a step on their way to the host: one read for all of them."""

    def __init__(self, numbers: Tensor, index: int, bystanders: int) -> None:
        self._index, self._bystanders = index, bystanders
        self._event: torch.cuda.Event | None = None
        self._numbers = numbers
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def values(self) -> tuple[dict[str, float], list[str]]:
        """A point of the curve, the terms that are not finite; waits for the device where it has to."""
        if self._event is not None:
            self._event.synchronize()
        numbers = self._numbers.tolist()
        point = {"step": self._index, **dict(zip(NUMBERS, numbers, strict=False))}
        gradient = point.pop("gradient")
        if not self._bystanders:
            del point["retained"]
        exploded = []
        for i, role in enumerate(ROLES):
            parts = numbers[len(NUMBERS) + i * len(KINDS) :][: len(KINDS)]
            kinds = [kind for kind, value in zip(KINDS, parts, strict=True) if not math.isfinite(value)]
            if kinds:
                exploded.append(f"the {role} term ({', '.join(kinds)})")
        if not exploded and not math.isfinite(point["loss"]):
            exploded.append("the loss")
        if not exploded and not math.isfinite(gradient):
            exploded.append("the gradient of the loss")
        return point, exploded


def compiled_losses(step: Step) -> Callable[..., Any]:
    """`step.losses` by torch.compile; its first call raises GuideFastError where it cannot be compiled."""
    losses = torch.compile(step.losses, dynamic=False)

    def call(*arguments: Any) -> Any:
        try:
            return losses(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = str(error).strip().splitlines()[0]
            raise GuideFastError(
                f"ltu.compiled = true, but the step cannot be compiled: {said}; set it to false"
            ) from (error)

    return call
