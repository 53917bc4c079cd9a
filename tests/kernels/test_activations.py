"""Large outputs on a CPU: blocks are used again, only when nobody holds them."""

from __future__ import annotations

import resource
from pathlib import Path

import contract
import torch

from guide_fast.kernels import _dispatch, bias_act

SHAPE = (1, 8, 256, 256)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_block_of_a_freed_output_is_used_again() -> None:
    contract.require_extension()
    like = torch.zeros(1)
    first = _dispatch.empty(SHAPE, like)
    at = first.data_ptr()
    del first
    assert _dispatch.empty(SHAPE, like).data_ptr() == at


def test_block_in_use_is_not_given_away() -> None:
    contract.require_extension()
    like = torch.zeros(1)
    view = _dispatch.empty(SHAPE, like, nhwc=True).fill_(3)[:, 1:2]
    others = [_dispatch.empty(SHAPE, like).fill_(4) for _ in range(3)]
    assert (view == 3).all() and all((other == 4).all() for other in others)


def test_layout_is_the_one_asked_for() -> None:
    contract.require_extension()
    assert _dispatch.empty(SHAPE, torch.zeros(1)).is_contiguous()
    assert _dispatch.is_nhwc(_dispatch.empty(SHAPE, torch.zeros(1), nhwc=True))


def test_memory_does_not_grow_over_calls() -> None:
    contract.require_extension()
    x = torch.zeros(1, 16, 512, 512)
    small = []
    for call in range(12):
        y = bias_act(x, impl="cpu")
        small.append(torch.zeros(20))  # takes the gap that an aligned block leaves
        if call == 3:
            settled = resident_bytes()
    assert resident_bytes() - settled < 2 * y.numel() * 4
