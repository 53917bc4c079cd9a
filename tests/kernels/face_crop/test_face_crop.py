"""face_crop: every implementation against the reference, bad input, the device maths."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import Framing, ImplementationUnavailable, KernelError, face_crop
from guide_fast.kernels.face_crop.framing import axes

BOX = (0.16, 0.94, 0.115, 0.895)
SHAPES = {"one": (1, 1, 1), "odd": (2, 13, 9), "square": (1, 24, 24), "wide": (1, 5, 40)}
FRAMINGS = {
    "smaller": Framing(BOX, 6, order=(2, 1, 0), mean=(0.1, 0.2, 0.3), scale=(2.0, 1.0, 0.5)),
    "larger": Framing((0, 0.6, 0.5, 1), 17, order=(1, 2, 0), scale=(1.0, -2.0, 0.5)),
    "area": Framing((0, 1, 0, 1), 5, "area"),
    "bilinear": Framing(BOX, 7, "bilinear"),
    "pooled before": Framing(BOX, 4, "area", resize_first=16),
}


def image(shape: tuple[int, int, int], dtype: torch.dtype, *, nhwc: bool = False) -> Tensor:
    n, height, width = shape
    x = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(6))
    layout = torch.channels_last if nhwc else torch.contiguous_format
    return x.to(contract.DEVICE, dtype).contiguous(memory_format=layout)


def skip_unless_it_runs(impl: str, dtype: torch.dtype) -> None:
    if impl == "cpu":
        contract.require_extension()
        if contract.DEVICE != "cpu" or dtype != torch.float32:
            pytest.skip("the native CPU path computes in float32 on the CPU")


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_reference_gradients_match_finite_differences(framing: Framing) -> None:
    contract.assert_gradcheck(lambda x: face_crop(x, framing, impl="reference"), [image((1, 6, 5), torch.float64)])


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_implementation_matches_the_reference(
    impl: str, dtype: torch.dtype, shape: tuple[int, int, int], framing: Framing
) -> None:
    skip_unless_it_runs(impl, dtype)
    contract.assert_matches(
        lambda x: face_crop(x, framing, impl=impl),
        lambda x: face_crop(x, framing, impl="reference"),
        [image(shape, dtype)],
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("framing", [FRAMINGS["smaller"], FRAMINGS["larger"]], ids=["smaller", "larger"])
def test_image_with_channels_last_gives_the_same(impl: str, framing: Framing) -> None:
    skip_unless_it_runs(impl, torch.float32)
    x = image(SHAPES["odd"], torch.float32)
    gy = torch.randn(2, 3, framing.size, framing.size, device=x.device).contiguous(memory_format=torch.channels_last)
    results = [
        contract.gradients(lambda x: face_crop(x, framing, impl=impl), [t], gy)
        for t in (x, x.contiguous(memory_format=torch.channels_last))
    ]
    for one, other in zip(*((y, *grads) for y, grads in results), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("impl", contract.implementations("cuda", "cpu"))
@pytest.mark.parametrize("framing", [Framing.dlib(BOX), Framing.faceres(BOX), Framing.arcface()], ids=str)
def test_framings_of_the_networks_at_their_sizes(impl: str, framing: Framing) -> None:
    skip_unless_it_runs(impl, torch.float32)
    contract.assert_matches(
        lambda x: face_crop(x, framing, impl=impl),
        lambda x: face_crop(x, framing, impl="reference"),
        [image((2, 256, 256), torch.float32)],
    )


def test_auto_converts_half_precision() -> None:
    x = image(SHAPES["odd"], torch.float16)
    crop = face_crop(x, FRAMINGS["smaller"])
    assert crop.dtype == torch.float16
    assert torch.allclose(crop.float(), face_crop(x.float(), FRAMINGS["smaller"]), atol=4e-3)


def test_gradient_is_zero_where_the_crop_does_not_look() -> None:
    x = image(SHAPES["square"], torch.float32).requires_grad_()
    face_crop(x, Framing((0.5, 1, 0.5, 1), 6, "area")).sum().backward()
    assert not x.grad[:, :, :12].any() and not x.grad[:, :, :, :12].any() and x.grad[:, :, 12:, 12:].all()


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    x = image(SHAPES["odd"], torch.float32).cpu().requires_grad_()
    settings = (list(BOX), 6, "triangle", 0, [2, 1, 0], [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], "cpu")
    torch.library.opcheck(torch.ops.guide_fast.face_crop, (x, *settings))
    torch.library.opcheck(torch.ops.guide_fast.face_crop_backward, (torch.randn(2, 3, 6, 6), 13, 9, *settings))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": torch.zeros(3, 4, 4)}, "rank 3"),
        ({"image": torch.zeros(1, 1, 4, 4)}, r"\(1, 1, 4, 4\)"),
        ({"image": torch.zeros(0, 3, 4, 4)}, "empty"),
        ({"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}, "uint8"),
        ({"image": torch.zeros(1, 3, 40000, 40000, device="meta")}, "40000"),
        ({"framing": BOX}, "tuple"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"image": torch.zeros(1, 3, 4, 4), "framing": Framing(BOX, 3)} | change
    with pytest.raises(KernelError, match=said):
        face_crop(arguments.pop("image"), arguments.pop("framing"), **arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"),
    [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16"), ("triton", torch.float64, "float64")],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(ImplementationUnavailable, match=said):
        face_crop(torch.zeros(1, 3, 4, 4, dtype=dtype), Framing(BOX, 3), impl=impl)


def test_device_maths_of_a_row_is_exact_to_rounding(tmp_path: Path) -> None:
    code = """
    extern "C" void row(const int32_t* start, const float* weight, int64_t in, int64_t out, int64_t taps,
                        const float* x, float* y, int* touched) {
      const gf_axis axis{in, out, taps, start, weight};
      for (int64_t i = 0; i < out; ++i) {
        y[i] = gf::resample(axis, i, [&](int64_t j) { return x[j]; });
        touched[i] = gf::touched(axis, i);
      }
    }"""
    maths = contract.compile_header("face_crop.cuh", code, tmp_path)
    maths.row.argtypes = [*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 3]
    framing = Framing(BOX, 7)
    for transposed in (False, True):
        rows, _ = axes(framing, 31, 31, torch.device("cpu"), transposed=transposed)
        matrix = framing.matrices(31, 31)[0]
        matrix = matrix.T if transposed else matrix
        x, y = torch.randn(matrix.shape[1]), torch.full((len(matrix),), torch.nan)
        touched = torch.zeros(len(matrix), dtype=torch.int32)
        maths.row(
            rows.start.data_ptr(), rows.weights.data_ptr(), len(x), len(y), rows.taps,
            x.data_ptr(), y.data_ptr(), touched.data_ptr(),
        )  # fmt: skip
        bound = (
            (rows.taps + 1) * 2.0**-24 * (matrix.abs() @ x.double().abs())
        )  # a rounding for each tap, one of weights
        assert ((y - matrix @ x.double()).abs() <= bound).all()
        assert torch.equal(touched.bool(), (matrix != 0).any(dim=1))


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    x = image(SHAPES["odd"], torch.float32).cpu()
    framing = FRAMINGS["smaller"]
    bands = [t.numpy() for axis in axes(framing, 13, 9, x.device) for t in (axis.start, axis.weights)]
    offset = [-m * s for m, s in zip(framing.mean, framing.scale, strict=True)]
    got = _native.face_crop(x.numpy(), *bands, source=framing.order, scale=framing.scale, offset=offset)
    assert torch.equal(torch.from_numpy(got), face_crop(x, framing, impl="cpu"))
    with pytest.raises(ValueError, match="reads past the image at output"):
        _native.face_crop(x[:, :, :6].contiguous().numpy(), *bands)
    with pytest.raises(ValueError, match="source 7"):
        _native.face_crop(x.numpy(), *bands, source=[0, 1, 7])
