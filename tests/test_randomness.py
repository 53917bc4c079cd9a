"""Random streams: reproducible, apart from each other, apart from plain seeds."""

from __future__ import annotations

import torch

from guide_fast.randomness import stream


def draw(generator: torch.Generator) -> list[float]:
    return torch.randn(4, generator=generator).tolist()


def test_same_purpose_with_the_same_numbers_gives_the_same_stream() -> None:
    assert draw(stream("step", 0, 7)) == draw(stream("step", 0, 7))


def test_streams_differ_by_purpose_and_by_number() -> None:
    streams = [("step", 0, 1), ("step", 1, 0), ("step", 0, 2), ("bank", 0, 1)]
    assert len({tuple(draw(stream(*key))) for key in streams}) == len(streams)


def test_no_stream_is_the_one_of_a_small_seed() -> None:
    internal = draw(stream("step", 0, 1))
    assert all(draw(torch.Generator().manual_seed(seed)) != internal for seed in range(100))
