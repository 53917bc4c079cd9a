"""Inputs of a session are checked once, by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from guide_fast.errors import UsageError
from guide_fast.serve.session import Shape, Version, checked

SHAPE = Shape("small", z_dim=4, num_ws=3, w_dim=2, c_dim=0, resolution=8)
LABELLED = Shape("labelled", z_dim=4, num_ws=3, w_dim=2, c_dim=5, resolution=8, c_needed=True)


def test_one_style_vector_stands_for_every_slot() -> None:
    inputs = checked(SHAPE, w=[[1, 2], [3, 4]], truncation=[0.5, 1])
    assert inputs.w is not None and inputs.w.shape == (2, 3, 2) and inputs.w.dtype == np.float32
    assert (inputs.w[1] == [3, 4]).all() and inputs.z is None
    one = inputs.part(1, 2)
    assert one.w is not None and len(one) == 1 and one.truncation.tolist() == [1.0] and (one.w == [3, 4]).all()


def test_one_truncation_stands_for_all() -> None:
    assert checked(SHAPE, z=np.ones((3, 4)), truncation=0.7).truncation.tolist() == pytest.approx([0.7] * 3)


def test_label_goes_with_its_latent() -> None:
    inputs = checked(LABELLED, z=np.ones((2, 4)), c=np.eye(5)[:2])
    assert inputs.c is not None and inputs.part(1, 2).c.tolist() == [[0, 1, 0, 0, 0]]
    assert checked(LABELLED, w=np.ones((1, 2))).c is None  # a w was mapped with its label already


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        (SHAPE, {}, "neither of z and w given"),
        (SHAPE, {"z": [[1] * 4], "w": [[1, 2]]}, "both of z and w given"),
        (SHAPE, {"z": [[1] * 5]}, "z has shape [1, 5]; give [N, 4]"),
        (SHAPE, {"z": np.ones((0, 4))}, "z has shape [0, 4]"),
        (SHAPE, {"z": [1] * 4}, "z has shape [4]"),
        (SHAPE, {"z": [["a"] * 4]}, "z is no array of numbers"),
        (SHAPE, {"z": [[1, 2], [3]]}, "z is no array of numbers"),
        (SHAPE, {"z": [[1, 2, float("nan"), 4]]}, "z holds nan at [0, 2]"),
        (SHAPE, {"w": np.ones((1, 4, 2))}, "w has shape [1, 4, 2]; give [N, 2] or [N, 3, 2]"),
        (SHAPE, {"z": [[1] * 4], "truncation": 3}, "truncation is 3; give numbers from -2 to 2"),
        (SHAPE, {"z": [[1] * 4], "truncation": [1, 1]}, "truncation is of shape [2]"),
        (SHAPE, {"z": [[1] * 4], "truncation": float("inf")}, "truncation is inf"),
        (SHAPE, {"z": [[1] * 4], "c": [[1]]}, "small takes no conditioning"),
        (LABELLED, {"z": [[1] * 4]}, "labelled needs a label for every z; give c with 5 numbers"),
        (LABELLED, {"z": [[1] * 4], "c": np.eye(5)[:2]}, "c has 2 rows for 1 latents"),
    ],
)
def test_what_does_not_fit_is_named(shape: Shape, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="|".join(map(re.escape, message.split("|")))):
        checked(shape, **given)


def test_version_is_plain_values() -> None:
    assert Version("ab", ("cd",)).to_dict() == {"weights_sha256": "ab", "lineage": ["cd"]}
