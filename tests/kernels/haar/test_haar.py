"""haar: every implementation against the reference, the wavelet itself, bad input."""

from __future__ import annotations

import contract
import pytest
import torch
from levels import run_at_level
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, haar

SHAPES = {
    "one": (1, 4, 1, 1),
    "odd": (2, 20, 5, 3),
    "wide": (1, 256, 8, 8),
    "image": (1, 12, 16, 16),
    "tall": (3, 4, 33, 7),
}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool = False) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    x = contract.on_a_grid(torch.randn(shape, generator=random)).to(contract.DEVICE, dtype)
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    return [x, contract.on_a_grid(torch.randn(shape[:2], generator=random)).to(x)]


def test_reference_gradients_match_finite_differences() -> None:
    contract.assert_gradcheck(lambda x, s: haar(x, s, impl="reference"), inputs((2, 8, 3, 2), torch.float64))


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_native_path_matches_the_reference(dtype: torch.dtype, shape: tuple[int, ...], nhwc: bool) -> None:
    contract.require_extension()
    if contract.DEVICE != "cpu":
        pytest.skip("the inputs are on a GPU")
    impl = "cpu" if dtype == torch.float32 else "auto"  # converts
    x, style = inputs(shape, dtype, nhwc=nhwc)
    contract.assert_matches(lambda x, s: haar(x, s, impl=impl), lambda x, s: haar(x, s, impl="reference"), [x, style])
    contract.assert_matches(lambda x: haar(x, impl=impl), lambda x: haar(x, impl="reference"), [x])


@pytest.mark.parametrize("level", ["base", "v3"])
def test_lower_instruction_sets_match_too(level: str) -> None:
    contract.require_extension()
    run_at_level(level, "haar", "test_native_path_matches_the_reference and float32")


def test_wavelet_keeps_lengths() -> None:
    x, _ = inputs(SHAPES["odd"], torch.float32)
    assert torch.allclose(haar(x).square().sum(), x.square().sum(), rtol=1e-5)


def test_layout_is_kept() -> None:
    x, s = inputs(SHAPES["wide"], torch.float32, nhwc=True)
    assert haar(x, s).is_contiguous(memory_format=torch.channels_last)
    assert haar(x.contiguous(), s).is_contiguous()


def test_each_gradient_alone_is_the_one_beside_the_other() -> None:
    x, s = inputs(SHAPES["odd"], torch.float32)
    _, (gx, gs) = contract.gradients(haar, [x, s])
    assert torch.equal(contract.gradients(lambda x: haar(x, s), [x])[1][0], gx)
    assert torch.equal(contract.gradients(lambda s: haar(x, s), [s])[1][0], gs)


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    x, s = (t.cpu().requires_grad_() for t in inputs(SHAPES["odd"], torch.float32))
    torch.library.opcheck(torch.ops.guide_fast.haar, (x, s, "cpu"))
    torch.library.opcheck(torch.ops.guide_fast.haar, (x.detach(), None, "cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 8)}, "rank 2"),
        ({"x": torch.zeros(0, 8, 3, 3)}, "empty"),
        ({"x": torch.zeros(2, 6, 3, 3)}, "6 channels"),
        ({"x": torch.zeros(2, 8, 3, 3, dtype=torch.int32)}, "int32"),
        ({"style": torch.zeros(8)}, "rank 1"),
        ({"style": torch.zeros(2, 2)}, r"\(2, 2\)"),
        ({"style": torch.zeros(2, 8, dtype=torch.float16)}, "float16"),
        ({"style": torch.zeros(2, 8, device="meta")}, "meta"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"x": torch.zeros(2, 8, 3, 3), "style": torch.zeros(2, 8)} | change
    with pytest.raises(KernelError, match=said):
        haar(arguments.pop("x"), arguments.pop("style"), **arguments)


def test_implementation_that_cannot_run_says_why() -> None:
    with pytest.raises(ImplementationUnavailable, match="float16"):
        haar(torch.zeros(1, 4, 2, 2, dtype=torch.float16), impl="cpu")


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    x, s = (t.cpu() for t in inputs(SHAPES["odd"], torch.float32))
    y = torch.from_numpy(_native.haar(x.numpy(), s.numpy()))
    assert torch.equal(y, haar(x, s, impl="cpu"))
    with pytest.raises(ValueError, match="5 channels"):
        _native.haar(x[:, :5].numpy())
    with pytest.raises(ValueError, match=r"\[2, 20\]"):
        _native.haar(x.numpy(), s[:1].numpy())
