"""Gradient descent on a latent, first in W, then in W+."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.config import InvertConfig
from guide_fast.errors import GuideFastError
from guide_fast.invert.objective import Objective, Terms, reduced
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
        self._local: tuple[Tensor, Tensor] | None = None  # weight [3 * f * f, C, 1, 1], bias

    def approximate(self, ws: Tensor) -> Tensor:
        """[1, L, D] -> [1, 3, r, r], differentiable."""
        rendering = self._generator.synthesis(ws, resolution=self.low)
        image = reduced(rendering.image, self._resolution)
        if self._local is None:
            return image
        factor = image.shape[-1] // rendering.features.shape[-1]
        return image + F.pixel_shuffle(F.conv2d(rendering.features, *self._local), factor)

    @torch.no_grad()
    def exact(self, ws: Tensor) -> Tensor:
        """[1, L, D] -> [1, 3, r, r] averaged from full resolution."""
        image = reduced(self._generator.synthesis(ws).image, self._resolution)
        if self.low is not None and self.low != self._generator.img_resolution:
            low = self._generator.synthesis(ws, resolution=self.low)
            if low.image.shape[-1] % low.features.shape[-1] == 0:
                self._local = _local_head(low.features, image - low.image)
        return image


def _local_head(features: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of each pixel's difference [1, 3, r, r] on its features [1, C, h, w]."""
    factor = difference.shape[-1] // features.shape[-1]
    x, y = features[0].flatten(1), F.pixel_unshuffle(difference, factor)[0].flatten(1)  # [C, P], [3 * f * f, P]
    x_mean, y_mean = x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    gram = ((x - x_mean) @ (x - x_mean).T).double()
    gram.diagonal().add_(LOCAL_RIDGE * gram.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(gram, ((x - x_mean) @ (y - y_mean).T).double()).to(x).T  # [3 * f * f, C]
    return weight[:, :, None, None].contiguous(), (y_mean - weight @ x_mean)[:, 0]


def descend(
    start: Tensor,  # [D]
    generator: Generator,
    objective: Objective,
    *,
    spread: float,
    config: InvertConfig,
    progress: Progress = silent,
) -> Descent:
    """The best latent found from `start`: `steps_w` steps of Adam in W, then `steps_w_plus` in W+.

    Slot l is `w_mean + spread * (common + own[l])`; in W `own` stays 0. `spread` is W's standard deviation, the unit of
    the learning rate. The loss is the objective plus `prior * (mean(common^2) + SPREAD * mean(own^2))`. It is measured
    at full resolution every CHECK_EVERY steps; the best of these points is kept, and a phase ends after `patience`
    steps without a better one. Raises GuideFastError when the loss stops being finite.
    """
    w_mean = generator.w_mean
    common = ((start - w_mean) / spread).requires_grad_()  # [D]
    own = torch.zeros(generator.num_ws, generator.w_dim).to(common).requires_grad_()  # [L, D]
    renderer = Renderer(generator, config.resolution)
    best = Descent(w_mean + spread * (common + own).detach(), math.inf, {}, 0)
    best_at = taken = 0

    def loss_of(render: Callable[[Tensor], Tensor]) -> tuple[Tensor, Terms]:
        terms = objective(render((w_mean + spread * (common + own))[None]))
        prior = common.square().mean() + SPREAD * own.square().mean()
        return terms.weighted(config)[0] + config.prior * prior, terms

    @torch.no_grad()
    def check() -> None:
        nonlocal best_at
        loss, terms = loss_of(renderer.exact)
        value = loss.item()
        if not math.isfinite(value):
            raise GuideFastError(f"the inversion's loss is {value} after {taken} steps; lower invert.lr ({config.lr})")
        best.curve.append(value)
        best.steps = taken
        if value < best.loss:
            best.w, best.loss, best_at = w_mean + spread * (common + own).detach(), value, taken
            best.terms = {name: term.item() for name, term in vars(terms).items()}

    total = config.steps_w + config.steps_w_plus
    check()
    progress("invert", 0, total, {"loss": best.loss})
    for steps, rates in ((config.steps_w, {common: 1.0}), (config.steps_w_plus, {common: 1.0, own: OWN_LR})):
        optimiser = torch.optim.Adam(
            [{"params": [tensor], "rate": config.lr * rate} for tensor, rate in rates.items()], betas=(0.9, 0.99)
        )
        best_at = taken
        for step in range(1, steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * _ramp(step / steps)
            optimiser.zero_grad()
            loss, _ = loss_of(renderer.approximate)
            loss.backward()
            optimiser.step()
            taken += 1
            if step % CHECK_EVERY == 0 or step == steps:
                check()
            progress("invert", taken, total, {"loss": loss.item(), "best": best.loss})
            if taken - best_at >= config.patience and best.steps == taken:
                break
    return best


def _ramp(done: float) -> float:
    """Learning rate factor for the share of a phase that is done: linear up, flat, then down along half a cosine."""
    down = min(1.0, (1 - done) / RAMP_DOWN)
    return max(min(1.0, done / RAMP_UP) * (0.5 - 0.5 * math.cos(math.pi * down)), RAMP_FLOOR)
