"""The backward kernels of separable_conv2d in Triton: which gradients are asked for, how sums are cut into parts."""

from __future__ import annotations

import contract
import pytest
import torch
from separable_layers import CASES, called, tensors

from guide_fast.kernels.separable_conv2d import separable_conv2d_backward_triton as triton_backward


@pytest.mark.parametrize("wanted", ["x", "style", "depthwise", "pointwise", "noise", "bias", "haar_style"])
def test_one_gradient_alone_is_the_same(wanted: str) -> None:
    case = CASES["wavelet"]
    given = tensors(case, torch.float32, nhwc=True)
    leaf = given.pop(wanted)
    function, reference = (called([wanted], impl, case[2], given) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, [leaf])


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("programs", [1, 5])
def test_sums_do_not_depend_on_how_they_are_cut(nhwc: bool, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backward, "PROGRAMS", programs)
    case = ((2, 40, 3, 9, 8), "depthwise noise bias", {})
    given = tensors(case, torch.float32, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, list(given.values()))
