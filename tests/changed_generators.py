"""Generators of a few weights with deltas that stack on them, as files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_generator
from tiny_eg3d import tiny_eg3d
from tiny_stylegan2 import tiny_stylegan2
from torch import nn

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.deltas import apply_delta, make_delta

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "mobilestylegan": tiny_generator,
    "stylegan2": tiny_stylegan2,
    "eg3d": tiny_eg3d,
}


@dataclass(frozen=True)
class Chain:
    """A generator with deltas, each made for the weights that the one before it leaves."""

    generator: Any
    deltas: list[Path]
    hashes: list[str]  # of the weights: before any delta, after the first, ...


def changed(generator: nn.Module, seed: int) -> nn.Module:
    """A copy whose layers moved a little."""
    made = copy.deepcopy(generator)
    random = torch.Generator().manual_seed(seed)
    for layer in made.layers[::2]:
        for parameter in made.layer_parameters(layer).values():
            parameter.data += torch.randn(parameter.shape, generator=random) * parameter.std().nan_to_num(0.1) * 0.5
    return made


def chain(generator: nn.Module, folder: Path, count: int = 2) -> Chain:
    """`count` deltas on `generator`, which stays as it is."""
    base, deltas, hashes = copy.deepcopy(generator), [], [weights_sha256(generator)]
    for number in range(count):
        after = changed(base, seed=number)
        delta = make_delta(base, after, config={}, seeds={}, metrics={})
        path = folder / f"delta-{number}.safetensors"
        delta.save(path)
        apply_delta(base, delta)
        deltas.append(path)
        hashes.append(weights_sha256(base))
    return Chain(generator, deltas, hashes)


def damaged_deltas(chain: Chain, folder: Path) -> dict[str, Path]:
    """Deltas that no session on `chain.generator` may take, by what is wrong with them."""
    good = Delta.load(chain.deltas[0])
    name = sorted(good.tensors)[0]
    made = {
        "flipped bit": Delta(**{**vars(good), "tensors": {**good.tensors, name: good.tensors[name] ^ 1}}),
        "unknown weight": Delta(
            **{**vars(good), "tensors": {**good.tensors, "blocks.9.bias": good.tensors[name].clone()}}
        ),
        "missing weight": Delta(**{**vars(good), "tensors": {n: t for n, t in good.tensors.items() if n != name}}),
        "other shape": Delta(**{**vars(good), "tensors": {**good.tensors, name: good.tensors[name].flatten()[:-1]}}),
    }
    files = {}
    for what, delta in made.items():
        files[what] = folder / f"{what.replace(' ', '-')}.safetensors"
        delta.save(files[what])
    files["truncated file"] = folder / "truncated.safetensors"
    files["truncated file"].write_bytes(chain.deltas[0].read_bytes()[:-10])
    files["no delta"] = folder / "text.safetensors"
    files["no delta"].write_text("good day")
    files["no file"] = folder / "absent.safetensors"
    files["other base"] = chain.deltas[1]
    return files
