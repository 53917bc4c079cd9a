"""Keeping everybody else without rendering them in a step: a trust region, elastic weight consolidation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from guide_fast.ltu.bank import Bank
from guide_fast.ltu.terms import Networks, observe
from guide_fast.models.generator import Generator
from guide_fast.randomness import stream


class TrustRegion:
    """After each step every layer is drawn back to where its root mean square distance from the start is `radius`.

    A modulation's tensors are whitened (`SelectiveModulation.shift`), so there it is the distance by which styles of
    random people move.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, nn.Parameter]], radius: float) -> None:
        self._groups = [list(group.values()) for group in groups.values()]
        self._start = [[p.detach().clone() for p in group] for group in self._groups]
        self._radius = radius

    @torch.no_grad()
    def project(self) -> None:
        """Draw the layers back; waits for no device."""
        for group, start in zip(self._groups, self._start, strict=True):
            moved = [parameter - origin for parameter, origin in zip(group, start, strict=True)]
            count = sum(p.numel() for p in group)
            distance = torch.stack(torch._foreach_norm(moved)).norm() / count**0.5
            share = (self._radius / distance.clamp_min(1e-30)).clamp_max(1.0)
            inside = share >= 1
            for parameter, origin, step in zip(group, start, moved, strict=True):
                parameter.copy_(torch.where(inside, parameter, origin + step * share))


class Elastic:
    """The penalty weight * sum F (theta - theta*)^2; SUGAR (arXiv 2512.06562) has it in place of the global term."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], fisher: Mapping[str, Tensor], weight: float) -> None:
        self._parameters = list(parameters.values())
        self._fisher = [fisher[name] for name in parameters]
        self._start = [p.detach().clone() for p in self._parameters]
        self._weight = weight

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Adds the penalty's gradient to the parameters'; returns the penalty []."""
        moved = [parameter - origin for parameter, origin in zip(self._parameters, self._start, strict=True)]
        pull = torch._foreach_mul(self._fisher, moved)
        for parameter, force in zip(self._parameters, pull, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(force, alpha=2 * self._weight)
        return self._weight * torch.stack([(f * m).sum() for f, m in zip(pull, moved, strict=True)]).sum()


def fisher_information(
    student: Generator,
    parameters: Mapping[str, nn.Parameter],
    bank: Bank,
    networks: Networks,
    *,
    people: int,
    resolution: int,
    seed: int,
) -> dict[str, Tensor]:
    """Diagonal Fisher information of what the networks see of the first `people` of the bank, by parameter.

    At the start the global term has no gradient, so it can tell nothing. What is seen is taken as the mean of a unit
    Gaussian instead: F = mean of (d (r . seen) / d theta)^2 over people with random signs r, which has the diagonal of
    the Gauss-Newton matrix as its mean. Embedding and taps count alike, each by its root mean square.
    """
    random = stream("fisher", seed)
    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    people = min(people, len(bank))
    for ws in bank.ws[:people]:
        views = observe(student.synthesis(ws[None], resolution=resolution), networks, keep_features=False)
        seen = [views.identity, *views.taps]
        answers = [(t * _signs(t, random)).sum() / t.detach().norm().clamp_min(1e-6) for t in seen]
        gradients = torch.autograd.grad(torch.stack(answers).sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.square() / people
    return found


def _signs(like: Tensor, random: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=random) * 2 - 1).to(like)
