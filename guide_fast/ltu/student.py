"""The trainable copy of a generator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from guide_fast.ltu.population import Population
from guide_fast.ltu.selective import SelectiveModulation, make_selective, merge_selective
from guide_fast.models.generator import Generator


class Student:
    """A copy of the teacher in which only the given layers can move."""

    def __init__(self, teacher: Generator, layers: tuple[str, ...], population: Population, *, ridge: float) -> None:
        self.generator = cast(Any, copy.deepcopy(teacher))  # a Generator that is a Module, too
        self.generator.requires_grad_(False)
        self.layers = layers
        self.population = population
        self.ridge = ridge
        whitening = population.whitening(ridge=ridge)
        self.selective: dict[str, SelectiveModulation] = make_selective(
            self.generator, layers, whitening, population.mean
        )

    def trainable(self) -> dict[str, dict[str, nn.Parameter]]:
        """Layer -> its trainable tensors by name; they require gradients from now on."""
        groups: dict[str, dict[str, nn.Parameter]] = {}
        for layer in self.layers:
            if layer in self.selective:
                groups[layer] = {f"{layer}.shift": self.selective[layer].shift}
            else:
                groups[layer] = self.generator.layer_parameters(layer)
            for parameter in groups[layer].values():
                parameter.requires_grad_(True)
        return groups

    def send(self, w_u: Tensor, w_t: Tensor) -> None:
        """Closed form: every chosen modulation layer treats `w_u` [L, D] as it treated `w_t` [L, D]."""
        w_id = w_u - self.population.mean
        response = self.population.response(w_id, ridge=self.ridge)
        for layer, modulation in self.selective.items():
            slot = self.generator.slot(layer)
            modulation.send(w_id[slot], response[slot], w_t[slot] - w_u[slot])

    def finish(self) -> Generator:
        """The plain generator with everything folded in."""
        merge_selective(self.generator)
        return self.generator.requires_grad_(False)


def layer_gradients(groups: Mapping[str, Mapping[str, nn.Parameter]], loss: Tensor) -> dict[str, Tensor]:
    """Layer -> flattened gradient of `loss`; zeros for layers past the resolution that the loss looks at."""
    parameters = [parameter for group in groups.values() for parameter in group.values()]
    gradients = iter(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    return {layer: torch.cat([next(gradients).flatten() for _ in group]) for layer, group in groups.items()}
