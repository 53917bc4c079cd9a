"""Random streams that never meet: one for each purpose."""

from __future__ import annotations

import hashlib

import torch


def stream(purpose: str, *numbers: int) -> torch.Generator:
    """A generator for `purpose` and its numbers (seed, step).

    Seeds that users see (`forget(seed=7)` is the person of z from seed 7) go to `manual_seed` as they are; everything
    internal is drawn from here, or a person could meet themselves among the random people they are compared with.
    """
    digest = hashlib.sha256(":".join((purpose, *map(str, numbers))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
