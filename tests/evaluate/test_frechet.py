"""The Frechet distance against formulas that know the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guide_fast.errors import UsageError
from guide_fast.evaluate.frechet import frechet_distance


def sample(n: int, d: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=torch.float64) @ torch.randn(d, d, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(200, 7), (9, 40)], ids=["more samples", "more dimensions"])
def test_equal_samples_have_distance_zero(n: int, d: int) -> None:
    x = sample(n, d, 0)
    assert frechet_distance(x, x.clone()) < 1e-9 * float(x.var(0).sum())


@pytest.mark.parametrize(("n", "d"), [(200, 7), (9, 40)], ids=["more samples", "more dimensions"])
def test_shift_adds_its_squared_length(n: int, d: int) -> None:
    x, shift = sample(n, d, 0), torch.arange(d, dtype=torch.float64)
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_scale_adds_the_variance_it_brings() -> None:
    x = sample(50, 7, 0)
    centred = x - x.mean(0)
    expected = (3 - 1) ** 2 * float(x.var(0).sum())
    assert frechet_distance(centred, 3 * centred) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (20, 300), (400, 20)])
def test_agrees_with_the_matrix_square_root(n: int, m: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = sample(n, 16, 1), sample(m, 16, 2) + 0.3
    s_a, s_b = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    root = linalg.sqrtm(s_a @ s_b).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(s_a + s_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_order_of_the_samples_does_not_matter() -> None:
    a, b = sample(30, 40, 1), sample(12, 40, 2)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b"),
    [(torch.zeros(4, 3), torch.zeros(4, 2)), (torch.zeros(1, 3), torch.zeros(4, 3)), (torch.zeros(3), torch.zeros(3))],
)
def test_other_shapes_are_refused(a: Tensor, b: Tensor) -> None:
    with pytest.raises(UsageError, match="shapes"):
        frechet_distance(a, b)


def test_broken_features_are_refused() -> None:
    x = sample(5, 3, 0)
    x[2, 1] = float("nan")
    with pytest.raises(UsageError, match="NaN"):
        frechet_distance(x, sample(5, 3, 0))
