"""Parts have the inputs their examples make; what cannot be exported is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_families import MAKERS

from guide_fast.errors import UsageError
from guide_fast.export.onnx_parts import check_noise, examples, family, parts_of, weights_of

PARTS = {
    "mobilestylegan": ["mapping", "synthesis"],
    "stylegan2": ["mapping", "synthesis"],
    "stylegan2-conditional": ["mapping", "synthesis"],
    "eg3d": ["mapping", "planes", "renderer", "super_resolution"],
}


@pytest.mark.parametrize("name", MAKERS)
def test_inputs_have_the_shapes_of_examples(name: str) -> None:
    generator: Any = MAKERS[name]()
    values = examples(generator, batch=2, seed=1, noise="const")
    parts = parts_of(generator, half=False, noise="const")
    assert [part.name for part in parts] == PARTS[name]
    made = {"z", "psi", "c", "camera"}
    for part in parts:
        assert part.inputs.keys() <= made | values.keys()
        for port, value in part.inputs.items():
            assert value.shape == values[port].shape, port
        made |= set(part.outputs)
    assert {"ws", "image"} <= made


def test_examples_repeat_by_seed() -> None:
    generator: Any = MAKERS["eg3d"]()
    one, same, other = (examples(generator, batch=2, seed=seed, noise="none") for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


def test_weights_leave_heads_out() -> None:
    generator: Any = MAKERS["mobilestylegan"]()
    names = weights_of(generator).keys()
    generator.heads["16"] = torch.nn.BatchNorm1d(3)
    assert weights_of(generator).keys() == names


def test_what_cannot_be_exported_is_refused() -> None:
    stranger: Any = torch.nn.Linear(1, 1)
    stranger.name = "stranger"
    with pytest.raises(UsageError, match="stranger is a Linear"):
        family(stranger)
    with pytest.raises(UsageError, match="noise='random'"):
        check_noise("random")
