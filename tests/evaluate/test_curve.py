"""The plot of the curve is a picture of what it is given."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from guide_fast.errors import UsageError
from guide_fast.evaluate.curve import DARK, LIGHT, draw_curve, series

CURVE = [{"step": i, "forgotten": 1 - i / 100, "retained": 1.0, "loss": 5.0} for i in range(0, 50, 10)]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def close_to(image: np.ndarray, colour: str) -> np.ndarray:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(image.astype(int) - rgb) <= 2).all(axis=-1)


@pytest.mark.parametrize(("dark", "palette"), [(False, LIGHT), (True, DARK)])
def test_lines_are_drawn_in_their_colours(dark: bool, palette: tuple[str, ...]) -> None:
    image = pixels(draw_curve(CURVE, label="similarity", dark=dark))
    assert close_to(image[:3, :3], palette.paper).all()
    for colour in (palette.forgotten, palette.retained):
        assert close_to(image, colour).sum() > 100


def test_band_of_strangers_changes_the_picture() -> None:
    plain = draw_curve(CURVE, label="similarity")
    banded = draw_curve(CURVE, label="similarity", strangers=(0.39, 0.06), final=(0.5, 0.97))
    assert not np.array_equal(pixels(plain), pixels(banded))


def test_points_without_a_measurement_are_left_out() -> None:
    curve: list[Mapping[str, float]] = [{"step": 0, "loss": 1.0}, {"step": 5, "forgotten": 0.5}]
    assert series(curve, "forgotten") == [(5, 0.5)]
    assert draw_curve(curve, label="similarity")


def test_label_is_text_never_a_formula() -> None:
    assert draw_curve(CURVE, label=r"cosine $\badcommand{ of a_network with a name that goes on for long")


def test_curve_without_similarities_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to plot"):
        draw_curve([{"step": 0, "loss": 1.0}], label="similarity")
