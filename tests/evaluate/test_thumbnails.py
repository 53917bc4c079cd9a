"""Thumbnails keep the picture; the choice among them does not flatter."""

from __future__ import annotations

import torch

from guide_fast.evaluate.thumbnails import Pair, choose, shrink


def test_shrinking_keeps_a_plain_colour() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 31, 31)
    assert shrink(images, 7).tolist() == torch.tensor([0, 128, 255]).view(1, 3, 1, 1).expand(2, 3, 7, 7).tolist()


def test_overshooting_values_are_clamped() -> None:
    images = torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    assert shrink(images, 8).flatten(1).unique(dim=1).tolist() == [[0], [255]]


def test_choice_takes_the_first_few_in_order(pairs: tuple[Pair, ...]) -> None:
    chosen = choose(pairs)
    assert [pair.kind for pair in chosen] == ["person"] + ["neighbour"] * 4 + ["bystander"] * 6
    assert chosen[1:5] == pairs[1:5]


def test_choice_shows_the_most_changed_bystander(pairs: tuple[Pair, ...]) -> None:
    assert [pair.most_changed for pair in choose(pairs)[5:]] == [False] * 5 + [True]
    assert sum(pair.most_changed for pair in choose(pairs, bystanders=10)) == 1


def test_choice_of_few_pairs_is_all_of_them(pairs: tuple[Pair, ...]) -> None:
    few = (*pairs[:3], pairs[-1])
    assert choose(few) == few
