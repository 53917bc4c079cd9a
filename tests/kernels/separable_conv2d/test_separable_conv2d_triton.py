"""separable_conv2d in Triton against the reference, in the interpreter where there is no GPU."""

from __future__ import annotations

import contract
import pytest
import torch
from separable_layers import CASES, called, tensors


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_triton_matches_the_reference(dtype: torch.dtype, case: tuple, nhwc: bool) -> None:
    given = tensors(case, dtype, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, list(given.values()))
