"""The difference is a fraction of the range; nothing that is not a number passes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

from guide_fast.export.onnx_compare import of_range

WANTED = np.array([[-1.0, 3.0]], np.float32)


def test_difference_is_that_of_the_farthest_over_the_range() -> None:
    assert of_range(WANTED + np.float32([[0.0, 0.5]]), WANTED) == pytest.approx(0.125)
    assert of_range(WANTED, WANTED) == 0


def test_a_constant_counts_by_itself() -> None:
    assert of_range(np.full(3, 0.25), np.zeros(3)) == 0.25


def test_what_is_no_number_or_has_another_shape_is_infinitely_far() -> None:
    assert of_range(WANTED * np.float32("nan"), WANTED) == float("inf")
    assert of_range(WANTED[0], WANTED) == float("inf")
