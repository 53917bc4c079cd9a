"""haar in Triton against the reference, in the interpreter where there is no GPU."""

from __future__ import annotations

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import haar
from guide_fast.kernels.haar import haar_triton

SHAPES = {"one": (1, 4, 1, 1), "odd": (2, 20, 3, 5), "tall": (1, 12, 33, 2), "deep": (1, 260, 2, 3)}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=random).to(contract.DEVICE, dtype)
    x = x.contiguous(memory_format=torch.channels_last) if nhwc else x
    return [x, torch.randn(shape[:2], generator=random).to(x)]


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_triton_matches_the_reference(dtype: torch.dtype, shape: tuple[int, ...], nhwc: bool) -> None:
    x, style = inputs(shape, dtype, nhwc=nhwc)
    contract.assert_matches(
        lambda x, s: haar(x, s, impl="triton"), lambda x, s: haar(x, s, impl="reference"), [x, style]
    )
    contract.assert_matches(lambda x: haar(x, impl="triton"), lambda x: haar(x, impl="reference"), [x])


@pytest.mark.parametrize("nhwc", [False, True])
def test_sums_of_the_style_need_no_gradient_of_x(nhwc: bool) -> None:
    x, style = inputs(SHAPES["odd"], torch.float32, nhwc=nhwc)
    contract.assert_matches(
        lambda s: haar(x, s, impl="triton"), lambda s: haar(x.to(s.dtype), s, impl="reference"), [style]
    )


@pytest.mark.parametrize("nhwc", [False, True])
def test_programs_of_several_steps_sum_everything(nhwc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haar_triton, "TILE", 64)
    monkeypatch.setattr(haar_triton, "PROGRAMS", 3)
    x, style = inputs((1, 8, 7, 9), torch.float32, nhwc=nhwc)
    contract.assert_matches(
        lambda x, s: haar(x, s, impl="triton"), lambda x, s: haar(x, s, impl="reference"), [x, style]
    )


@pytest.mark.parametrize("nhwc", [False, True])
def test_layout_is_kept(nhwc: bool) -> None:
    x, style = inputs(SHAPES["odd"], torch.float32, nhwc=nhwc)
    y = haar(x, style, impl="triton")
    assert y.is_contiguous(memory_format=torch.channels_last if nhwc else torch.contiguous_format)
