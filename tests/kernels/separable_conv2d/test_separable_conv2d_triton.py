"""separable_conv2d in Triton against the reference, in the interpreter where there is no GPU."""

from __future__ import annotations

import contract
import pytest
import torch
from separable_layers import CASES, called, tensors

from guide_fast.kernels import _triton


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_triton_matches_the_reference(dtype: torch.dtype, case: tuple, nhwc: bool) -> None:
    given = tensors(case, dtype, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, list(given.values()))


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_tiles_of_every_gpu_give_the_same(nhwc: bool, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "has_wide_products", lambda x: wide)
    case = ((1, 5, 3, 9, 8), "depthwise noise bias", {})  # 72 pixels: more than either tile
    given = tensors(case, torch.float16, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, list(given.values()))
