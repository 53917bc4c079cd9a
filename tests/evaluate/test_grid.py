"""The grid shows whom it should, stays small, refuses what it cannot draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.evaluate.grid import CELL, GAP, HEADER, MARGIN, ROW_LABEL, draw_grid, picture, write_grid
from guide_fast.evaluate.thumbnails import Pair

LARGEST = 1_500_000  # bytes


def test_grid_of_noise_stays_below_the_limit(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    target = torch.rand(3, 200, 200) * 2 - 1
    path = write_grid(tmp_path / "new", pairs, target=target)
    assert path == tmp_path / "new" / "grid.png"
    assert path.stat().st_size < LARGEST
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_before_stands_above_after(pairs: tuple[Pair, ...]) -> None:
    image = np.asarray(draw_grid(pairs))
    left, top = MARGIN + ROW_LABEL, MARGIN + HEADER
    for row, thumbnail in enumerate((pairs[0].before, pairs[0].after)):
        y = top + row * (CELL + GAP)
        expected = picture(thumbnail).resize((CELL, CELL), Image.Resampling.LANCZOS)
        assert np.array_equal(image[y : y + CELL, left : left + CELL], np.asarray(expected))


def test_target_adds_one_column(pairs: tuple[Pair, ...]) -> None:
    without, with_target = draw_grid(pairs), draw_grid(pairs, target=torch.zeros(3, 64, 64))
    assert CELL <= with_target.width - without.width <= CELL + 40
    assert with_target.height == without.height


def test_labels_are_drawn(pairs: tuple[Pair, ...]) -> None:
    image = np.asarray(draw_grid(pairs))
    for place in (image[MARGIN : MARGIN + HEADER], image[:, MARGIN : MARGIN + ROW_LABEL - 4], image[-30:]):
        assert (place < 128).any(), "nothing dark where a label belongs"


def test_person_alone_is_enough(pairs: tuple[Pair, ...]) -> None:
    assert draw_grid(pairs[:1]).width < 3 * CELL


def test_same_pairs_give_the_same_bytes(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    assert write_grid(tmp_path / "a", pairs).read_bytes() == write_grid(tmp_path / "b", pairs).read_bytes()


def test_grid_without_the_person_is_refused(pairs: tuple[Pair, ...]) -> None:
    with pytest.raises(UsageError, match="no thumbnail of the person"):
        draw_grid(pairs[1:])


@pytest.mark.parametrize("target", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_target_of_another_kind_is_refused(target: torch.Tensor, pairs: tuple[Pair, ...]) -> None:
    with pytest.raises(UsageError, match=r"give \[3, R, R\] floats"):
        draw_grid(pairs, target=target)


def test_folder_that_cannot_be_written_is_said(pairs: tuple[Pair, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GuideFastError, match="cannot write"):
        write_grid(tmp_path / "file", pairs)
