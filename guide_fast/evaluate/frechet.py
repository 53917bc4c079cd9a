"""Frechet distance of two samples of feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_fast.errors import UsageError


def frechet_distance(
    a: Tensor,  # [N, D]
    b: Tensor,  # [M, D]
) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) in float64, covariances over N - 1.

    With centred samples A and B, the eigenvalues of S_a S_b are the squared singular values of A B^T / (N - 1), so the
    trace of its square root is a sum of singular values. No square root of a rank-deficient matrix is ever taken,
    which for N < D would cost half of the digits. Biased upwards for small N. Raises UsageError on other shapes,
    fewer than two vectors or values that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UsageError(f"features have shapes {list(a.shape)}, {list(b.shape)}; give [N, D], [M, D] with N, M >= 2")
    a, b = a.double(), b.double()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise UsageError("features hold NaN or infinity; one of the generators renders broken images")
    root_a, root_b = _root(a), _root(b)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * torch.linalg.svdvals(root_a @ root_b.mT).sum()
    return max(0.0, float(shift + spread))  # rounding leaves about -1e-13 between equal samples


def _root(x: Tensor) -> Tensor:
    """R [min(N, D), D] with R^T R the covariance of x [N, D]."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    if len(x) <= x.shape[1]:
        return centred
    return torch.linalg.qr(centred, mode="r").R
