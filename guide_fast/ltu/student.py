"""The trainable copy of a generator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from guide_fast.ltu.low_rank import make_low_rank, merge_low_rank
from guide_fast.ltu.population import Population
from guide_fast.ltu.precision import set_half
from guide_fast.ltu.selective import SelectiveModulation, make_selective, merge_selective
from guide_fast.ltu.switches import lay_out
from guide_fast.models.generator import Generator


class Student:
    """A copy of the teacher in which only the given layers can move."""

    def __init__(self, teacher: Generator, layers: tuple[str, ...], population: Population, *, ridge: float) -> None:
        self.generator = cast(Any, copy.deepcopy(teacher))  # a Generator that is a Module, too
        self.generator.requires_grad_(False)
        self.layers = layers
        self.population = population
        self.ridge = ridge
        self.half: frozenset[str] = frozenset()  # blocks that compute in float16 until the end
        whitening = population.whitening(ridge=ridge)
        self.selective: dict[str, SelectiveModulation] = make_selective(
            self.generator, layers, whitening, population.mean
        )

    def trainable(self, *, rank: int = 0, seed: int = 0, restrict: bool = True) -> dict[str, dict[str, nn.Parameter]]:
        """Layer -> its trainable tensors by name; they require gradients from now on.

        With `rank` matrices and convolutions move by an update of that rank, on top of what `send` did before. Without
        `restrict` every parameter requires a gradient, though only those returned are to move.
        """
        groups: dict[str, dict[str, nn.Parameter]] = {}
        for layer in self.layers:
            if layer in self.selective:
                groups[layer] = {f"{layer}.shift": self.selective[layer].shift}
            else:
                groups[layer] = self.generator.layer_parameters(layer)
        if rank:
            groups = {layer: self._low_rank(group, rank, seed) for layer, group in groups.items()}
        if not restrict:
            self.generator.requires_grad_(True)
        for group in groups.values():
            for parameter in group.values():
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
        self.generator.zero_grad(set_to_none=True)
        merge_low_rank(self.generator)
        merge_selective(self.generator)
        lay_out(self.generator, channels_last=True)
        set_half(self.generator, self.half, half=False)
        return self.generator.requires_grad_(False)

    def _low_rank(self, group: Mapping[str, nn.Parameter], rank: int, seed: int) -> dict[str, nn.Parameter]:
        found: dict[str, nn.Parameter] = {}
        for full_name in group:
            owner, _, name = full_name.rpartition(".")
            module = self.selective[owner] if name == "shift" else self.generator.get_submodule(owner)
            found |= make_low_rank(module, name, rank=rank, seed=seed, full_name=full_name)
        return found


def layer_gradients(groups: Mapping[str, Mapping[str, nn.Parameter]], loss: Tensor) -> dict[str, Tensor]:
    """Layer -> flattened gradient of `loss`; zeros for layers past the resolution that the loss looks at."""
    parameters = [parameter for group in groups.values() for parameter in group.values()]
    gradients = iter(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    return {layer: torch.cat([next(gradients).flatten() for _ in group]) for layer, group in groups.items()}
