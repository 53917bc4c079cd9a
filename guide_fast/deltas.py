"""Making, applying, undoing deltas: exact inverses on the bits of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.generator import Generator

G = TypeVar("G", bound=Generator)

_BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def make_delta(
    base: Generator,
    changed: Generator,
    *,
    config: Mapping[str, Any],
    seeds: Mapping[str, int],
    metrics: Mapping[str, Any],
) -> Delta:
    """The tensors in which two generators of one architecture differ."""
    after = dict(changed.named_parameters())
    tensors = {}
    for name, parameter in base.named_parameters():
        bits = _bits(parameter) ^ _bits(after[name])
        if bits.any():
            tensors[name] = bits
    lineage = getattr(base, "lineage", ())
    return Delta(
        tensors=tensors,
        base_sha256=weights_sha256(base),
        result_sha256=weights_sha256(changed),
        generator=base.name,
        parent_sha256=lineage[-1] if lineage else None,
        config=dict(config),
        seeds=dict(seeds),
        metrics=dict(metrics),
    )


def apply_delta(
    generator: G,
    delta: Delta | Path | str,
) -> G:
    """Change `generator` in place and return it. Deltas stack in the order in which they were made.

    `delta` may be a path. Raises UsageError when the delta was made for other weights, IntegrityError when the result
    is not what the delta promises (the generator is then as it was).
    """
    delta = _loaded(delta)
    _flip(generator, delta, delta.base_sha256, delta.result_sha256, "applied to")
    generator.lineage = (*getattr(generator, "lineage", ()), delta.sha256)
    return generator


def rollback(
    generator: G,
    delta: Delta | Path | str,
) -> G:
    """Undo `apply_delta` in place, to the last bit; the last applied delta goes first.

    `delta` may be a path. Raises UsageError when the delta is not the last one applied, IntegrityError when the bytes
    do not come out right.
    """
    delta = _loaded(delta)
    _flip(generator, delta, delta.result_sha256, delta.base_sha256, "rolled back from")
    generator.lineage = getattr(generator, "lineage", ())[:-1]
    return generator


def _loaded(delta: Delta | Path | str) -> Delta:
    return delta if isinstance(delta, Delta) else Delta.load(Path(delta))


def _flip(generator: Generator, delta: Delta, expected: str, promised: str, verb: str) -> None:
    found = weights_sha256(generator)
    if found != expected:
        raise UsageError(
            f"the delta for {delta.generator} can only be {verb} weights with sha256 {expected[:12]}, these have "
            f"{found[:12]}; give the generator with the deltas that came before it, in order"
        )
    parameters = dict(generator.named_parameters())
    for name, change in delta.tensors.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != change.shape or _BITS[parameter.dtype] != change.dtype:
            raise IntegrityError(f"the delta changes {name!r}, which {delta.generator} does not have in that form")
    _xor(parameters, delta.tensors)
    if weights_sha256(generator) != promised:
        _xor(parameters, delta.tensors)
        raise IntegrityError(
            f"the delta is damaged: it does not lead to the promised weights {promised[:12]}; "
            f"restore it from a good copy"
        )


@torch.no_grad()
def _xor(parameters: Mapping[str, nn.Parameter], changes: Mapping[str, Tensor]) -> None:
    for name, change in changes.items():
        parameters[name].data.view(change.dtype).bitwise_xor_(change.to(parameters[name].device))


def _bits(parameter: Tensor) -> Tensor:
    value = parameter.detach().cpu().contiguous()
    return value.view(_BITS[value.dtype])
