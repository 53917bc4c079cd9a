"""A seed is the same person with torch and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guide_fast.errors import UsageError
from guide_fast.serve.seeds import z_of


@pytest.mark.parametrize("size", [512, 64, 16, 12, 5, 1, 17, 40])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 3, 2**63 - 1])
def test_z_is_what_torch_draws(seed: int, size: int) -> None:
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed)).numpy()
    z = z_of(seed, size)
    assert z.dtype == np.float32 and z.shape == (size,)
    np.testing.assert_allclose(z, drawn, rtol=0, atol=1e-6)


def test_other_seed_is_another_z() -> None:
    assert np.abs(z_of(1, 512) - z_of(2, 512)).max() > 1


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "7", None])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(UsageError, match="out of range"):
        z_of(seed, 16)
