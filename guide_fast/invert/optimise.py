"""Gradient descent on a latent, first in W, then in W+."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.config import InvertConfig
from guide_fast.errors import DivergedError
from guide_fast.invert.objective import Objective, Terms, reduced
from guide_fast.invert.state import Snapshot
from guide_fast.kernels import FusedAdam
from guide_fast.models.framing import ffhq_framed
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

LOCAL_RIDGE = 1e-3  # relative to the mean squared feature
CHECK_EVERY = 20  # steps between renderings at full resolution
SPREAD = 4.0  # weight of the slots' spread in the prior relative to that of their mean
OWN_LR = 0.5  # learning rate of a slot's own part relative to that of the common part
RAMP_UP, RAMP_DOWN = 0.05, 0.3  # shares of a phase
RAMP_FLOOR = 0.01  # the last step still moves


@dataclass
class Descent:
    """Where a descent ended."""

    w: Tensor  # [L, D], the best at a check
    loss: float
    terms: dict[str, float]  # of that point at full resolution, before weighting
    steps: int  # taken in total
    curve: list[float] = field(default_factory=list)  # loss at each check


class Renderer:
    """Renders for the loss: at low resolution where the generator has a head for it.

    A head is linear and the same for all latents, so its image differs from the true one by more than an inversion
    gains. `exact` renders at full resolution and fits, at that latent, a linear map from the features to the
    difference, which `approximate` adds: near that latent both agree, for the price of a full rendering now and then.
    """

    def __init__(self, generator: Generator, resolution: int) -> None:
        self._generator, self._resolution = generator, resolution
        self.low = resolution if resolution in generator.resolutions else None
        self.local: tuple[Tensor, Tensor] | None = None  # weight [3 * f * f, C, 1, 1], bias

    def approximate(self, ws: Tensor) -> Tensor:
        """[1, L, D] -> [1, 3, r, r], differentiable."""
        rendering = self._generator.synthesis(ws, resolution=self.low)
        image = reduced(rendering.image, self._resolution)
        if self.local is not None:
            factor = image.shape[-1] // rendering.features.shape[-1]
            image = image + F.pixel_shuffle(F.conv2d(rendering.features, *self.local), factor)
        return self._framed(image)

    @torch.no_grad()
    def exact(self, ws: Tensor) -> Tensor:
        """[1, L, D] -> [1, 3, r, r] averaged from full resolution."""
        image = reduced(self._generator.synthesis(ws).image, self._resolution)
        if self.low is not None and self.low != self._generator.img_resolution:
            low = self._generator.synthesis(ws, resolution=self.low)
            if low.image.shape[-1] % low.features.shape[-1] == 0:
                self.local = _local_head(low.features, image - low.image)
        return self._framed(image)

    def _framed(self, image: Tensor) -> Tensor:
        """As the aligned photo shows the face: features are not moved, so this comes after them."""
        return image if self._generator.cameras is None else ffhq_framed(image)


def _local_head(features: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of each pixel's difference [1, 3, r, r] on its features [1, C, h, w]."""
    factor = difference.shape[-1] // features.shape[-1]
    x, y = features[0].flatten(1), F.pixel_unshuffle(difference, factor)[0].flatten(1)  # [C, P], [3 * f * f, P]
    x_mean, y_mean = x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    gram = ((x - x_mean) @ (x - x_mean).T).double()
    gram.diagonal().add_(LOCAL_RIDGE * gram.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(gram, ((x - x_mean) @ (y - y_mean).T).double()).to(x).T  # [3 * f * f, C]
    return weight[:, :, None, None].contiguous(), (y_mean - weight @ x_mean)[:, 0]


class Search:
    """Adam from a latent `start` [D]: `steps_w` steps in W, then `steps_w_plus` in W+, to be left between any two.

    A start of W+ [L, D], as an encoder gives it, leaves the steps in W out.
    Slot l is `w_mean + spread * (common + own[l])`; in W `own` stays 0. `spread` is W's standard deviation, the unit of
    the learning rate. The loss is the objective plus `prior * (mean(common^2) + SPREAD * mean(own^2))`. It is measured
    at full resolution every CHECK_EVERY steps; the best of these points is kept, and a phase ends after `patience`
    steps without a better one.

    `snapshot` is what the last whole step left (None before the first check); a search `resumed` from it with the same
    generator, objective, settings ends at the same bits.
    """

    def __init__(
        self, start: Tensor, generator: Generator, objective: Objective, *, spread: float, config: InvertConfig
    ) -> None:
        self._objective, self._config, self._spread = objective, config, spread
        self._w_mean = generator.w_mean
        common, own = start, torch.zeros(generator.num_ws, generator.w_dim).to(start)
        if start.ndim == 2:
            common = start.mean(dim=0)
            own = (start - common) / spread
        self._common = ((common - self._w_mean) / spread).requires_grad_()  # [D]
        self._own = own.requires_grad_()  # [L, D]
        self._renderer = Renderer(generator, config.resolution)
        self._best = Descent(self._w(), math.inf, {}, 0)
        self._step = self._taken = self._best_at = 0
        self._phase = self.first_phase = start.ndim - 1
        self._optimiser = self._adam()
        self.snapshot: Snapshot | None = None

    @classmethod
    def resumed(cls, snapshot: Snapshot, generator: Generator, objective: Objective, *, config: InvertConfig) -> Search:
        """The search as it was when `snapshot` was taken."""
        search = cls(generator.w_mean, generator, objective, spread=snapshot.numbers["spread"], config=config)
        search._restore(snapshot)
        return search

    def run(self, progress: Progress = silent) -> Descent:
        """The best latent found; raises DivergedError when the loss stops being finite."""
        phases = (self._config.steps_w, self._config.steps_w_plus)
        if self.snapshot is None:
            self._check()
            self.snapshot = self._taken_down()
        total = sum(phases[self.first_phase :])
        progress("invert", self._taken, total, {"loss": self._best.loss})
        while self._phase < len(phases):
            steps = phases[self._phase]
            if self._step >= steps or self._stuck():
                self._phase, self._step, self._best_at = self._phase + 1, 0, self._taken
                self._optimiser = self._adam()
                continue
            self._step += 1
            loss = self._descend(self._step / steps)
            if self._step % CHECK_EVERY == 0 or self._step == steps:
                self._check()
            self.snapshot = self._taken_down()
            progress("invert", self._taken, total, {"loss": loss, "best": self._best.loss})
        return self._best

    def _descend(self, share: float) -> float:
        """One step, the one that ends `share` of its phase; returns the loss before it."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["rate"] * _ramp(share)
        self._optimiser.zero_grad()
        loss, _ = self._loss(self._renderer.approximate)
        loss.backward()
        self._optimiser.step()
        self._taken += 1
        return loss.item()

    @torch.no_grad()
    def _check(self) -> None:
        best = self._best
        loss, terms = self._loss(self._renderer.exact)
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"the inversion's loss is {value} after {self._taken} steps; lower invert.lr ({self._config.lr})"
            )
        best.curve.append(value)
        best.steps = self._taken
        if value < best.loss:
            best.w, best.loss, self._best_at = self._w(), value, self._taken
            best.terms = {name: term.item() for name, term in vars(terms).items()}

    def _stuck(self) -> bool:
        return self._taken - self._best_at >= self._config.patience and self._best.steps == self._taken

    def _loss(self, render: Callable[[Tensor], Tensor]) -> tuple[Tensor, Terms]:
        terms = self._objective(render((self._w_mean + self._spread * (self._common + self._own))[None]))
        prior = self._common.square().mean() + SPREAD * self._own.square().mean()
        return terms.weighted(self._config)[0] + self._config.prior * prior, terms

    def _w(self) -> Tensor:
        return self._w_mean + self._spread * (self._common + self._own).detach()

    def _adam(self) -> FusedAdam:
        """For the phase at hand; its moments start from nothing."""
        rates = {"common": 1.0} if self._phase == 0 else {"common": 1.0, "own": OWN_LR}
        moving = self._moving()
        groups = [{"params": [moving[name]], "rate": self._config.lr * rate} for name, rate in rates.items()]
        return FusedAdam(groups, betas=(0.9, 0.99))

    def _moving(self) -> dict[str, Tensor]:
        return {"common": self._common, "own": self._own}

    def _taken_down(self) -> Snapshot:
        """A copy of what the rest depends on: hundreds of kilobytes, next to a rendering in each step."""
        tensors = {"best": self._best.w}
        for name, tensor in self._moving().items():
            tensors[f"value/{name}"] = tensor.detach().clone()
            for key, moment in self._optimiser.state.get(tensor, {}).items():
                tensors[f"{key}/{name}"] = moment.clone()
        if self._renderer.local is not None:
            tensors["local/weight"], tensors["local/bias"] = self._renderer.local
        numbers = {
            "spread": self._spread,
            "first_phase": self.first_phase,
            "phase": self._phase,
            "step": self._step,
            "taken": self._taken,
            "best_at": self._best_at,
            "best": {name: value for name, value in vars(self._best).items() if name != "w"}
            | {"curve": [*self._best.curve], "terms": {**self._best.terms}},
        }
        return Snapshot(tensors, numbers)

    @torch.no_grad()
    def _restore(self, snapshot: Snapshot) -> None:
        tensors = {name: value.to(self._w_mean.device) for name, value in snapshot.tensors.items()}
        numbers = copy.deepcopy(snapshot.numbers)  # the curve grows on, the snapshot does not
        self._phase, self._step = numbers["phase"], numbers["step"]
        self.first_phase = numbers["first_phase"]
        self._taken, self._best_at = numbers["taken"], numbers["best_at"]
        self._best = Descent(tensors["best"], **numbers["best"])
        self._optimiser = self._adam()
        for name, tensor in self._moving().items():
            tensor.copy_(tensors[f"value/{name}"])
            keys = {key.partition("/")[0] for key in tensors if key.endswith(f"/{name}")} - {"value"}
            if keys:
                self._optimiser.state[tensor] = {key: tensors[f"{key}/{name}"].clone() for key in keys}
        if "local/weight" in tensors:
            self._renderer.local = tensors["local/weight"], tensors["local/bias"]
        self.snapshot = snapshot


def _ramp(done: float) -> float:
    """Learning rate factor for the share of a phase that is done: linear up, flat, then down along half a cosine."""
    down = min(1.0, (1 - done) / RAMP_DOWN)
    return max(min(1.0, done / RAMP_UP) * (0.5 - 0.5 * math.cos(math.pi * down)), RAMP_FLOOR)
