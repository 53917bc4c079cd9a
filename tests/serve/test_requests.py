"""A request to render is read strictly: one latent, known keys, numbers in range."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guide_fast.errors import UsageError
from guide_fast.serve.requests import RenderRequest
from guide_fast.serve.seeds import z_of


def parse(said: Any) -> RenderRequest:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return RenderRequest.parse(body, z_dim=16, timeout=30)


def test_seed_becomes_its_z() -> None:
    request = parse({"seed": 7})
    assert np.array_equal(request.latent["z"], z_of(7, 16))
    assert (request.format, request.timeout, request.latent["truncation"]) == ("png", 30, 1.0)


def test_everything_that_may_be_said() -> None:
    request = parse({"w": [[1, 2]], "c": [0, 1], "truncation": 0.5, "format": "raw", "timeout": 2})
    assert request.latent == {"w": [[1, 2]], "c": [0, 1], "truncation": 0.5}
    assert (request.format, request.timeout) == ("raw", 2)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"{", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        ([7], "the body is a list"),
        ({}, "none of seed, z, w given"),
        ({"seed": 1, "z": [1]}, "seed and z of seed, z, w given"),
        ({"seed": 1, "trunc": 1}, "'trunc' is not known; a request has seed, z"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": True}, "seed True is out of range"),
        ({"seed": 1, "truncation": "half"}, "truncation is 'half'; give a number"),
        ({"seed": 1, "format": "gif"}, "format 'gif' is not known; choose png or raw"),
        ({"seed": 1, "timeout": 0}, "timeout 0 s is out of range"),
        ({"seed": 1, "timeout": 1e9}, "timeout 1e\\+09 s is out of range"),
    ],
)
def test_what_is_wrong_is_named(said: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(said)
