"""identity_loss: every implementation against the reference, bad input, the device maths."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels import ImplementationUnavailable, KernelError, identity_loss

SHAPES = {"one": (1, 1), "odd": (3, 7), "dlib": (8, 128), "wide": (2, 1100)}
SETTINGS = {
    "cosine": {},
    "l2": {"kind": "l2"},
    "squared": {"kind": "squared_l2", "reduction": "sum"},
    "raw": {"kind": "l2", "normalise": False, "scale": 1.25, "reduction": "mean"},
    "mean": {"reduction": "mean", "scale": 0.5},
}


def pairs(shape: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=random).to(contract.DEVICE, dtype) for _ in range(2)]


def runs_as(impl: str, dtype: torch.dtype) -> str:
    if impl != "cpu":
        return impl
    contract.require_extension()
    if contract.DEVICE != "cpu":
        pytest.skip("the inputs are on a GPU")
    if dtype != torch.float32:
        pytest.skip("the native CPU path computes in float32")
    return impl


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_reference_gradients_match_finite_differences(settings: dict) -> None:
    contract.assert_gradcheck(
        lambda a, b: identity_loss(a, b, impl="reference", **settings), pairs(SHAPES["odd"], torch.float64)
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_implementation_matches_the_reference(
    impl: str, dtype: torch.dtype, shape: tuple[int, int], settings: dict
) -> None:
    impl = runs_as(impl, dtype)
    if shape == SHAPES["one"] and settings.get("normalise", True):
        settings = settings | {"normalise": False, "kind": "l2"}  # in one dimension a direction has no slope
    contract.assert_matches(
        lambda a, b: identity_loss(a, b, impl=impl, **settings),
        lambda a, b: identity_loss(a, b, impl="reference", **settings),
        pairs(shape, dtype),
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("rows", [129, 1000])
def test_any_number_of_pairs_is_reduced(impl: str, reduction: str, rows: int) -> None:
    impl = runs_as(impl, torch.float32)
    contract.assert_matches(
        lambda a, b: identity_loss(a, b, reduction=reduction, impl=impl),
        lambda a, b: identity_loss(a, b, reduction=reduction, impl="reference"),
        pairs((rows, 3), torch.float32),
    )
    a, b = pairs((rows, 3), torch.float32)
    again = [identity_loss(a, b, reduction=reduction, impl=impl) for _ in range(2)]
    assert torch.equal(*again)


@pytest.mark.parametrize("rows", [1, 128, 129, 300])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_triton_takes_one_launch(rows: int, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from guide_fast.kernels.identity_loss import identity_loss_triton

    kernel, grids = identity_loss_triton.identity_loss_kernel, []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(identity_loss_triton, "identity_loss_kernel", Counted())
    a, b = pairs((rows, 5), torch.float32)
    loss = identity_loss(a.requires_grad_(), b, reduction=reduction, impl="triton")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert torch.equal(loss, identity_loss(a, b, reduction=reduction, impl="triton"))
    assert grids == [(rows if reduction == "none" else 1,)] * 2
    assert "aten::sum" not in {event.name for event in profile.events()}


def test_cosine_is_that_of_pytorch() -> None:
    a, b = pairs(SHAPES["dlib"], torch.float32)
    assert torch.allclose(identity_loss(a, b), 1 - F.cosine_similarity(a, b), atol=1e-6)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_cosine_of_nearly_equal_embeddings_keeps_its_digits(impl: str) -> None:
    impl = runs_as(impl, torch.float32)
    a, _ = pairs((4, 512), torch.float32)
    b = a * (1 + 1e-4 * torch.arange(512.0, device=a.device).sin())
    exact = identity_loss(a.double(), b.double(), impl="reference")
    assert ((identity_loss(a, b, impl=impl) - exact).abs() <= 1e-3 * exact).all()
    assert ((identity_loss(a, b, impl="reference") - exact).abs() > 1e-3 * exact).any()  # 1 - cos cannot


@pytest.mark.parametrize("impl", contract.implementations("reference", "triton", "cuda", "cpu"))
@pytest.mark.parametrize("kind", ["cosine", "l2", "squared_l2"])
def test_equal_and_zero_embeddings_have_a_finite_gradient(impl: str, kind: str) -> None:
    impl = runs_as(impl, torch.float32)
    a, b = pairs((4, 16), torch.float32)
    b[0] = a[0]
    a[1] = 0
    b[2] = 0
    a[3] = b[3] = 0
    exact, slopes = contract.gradients(
        lambda a, b: identity_loss(a, b, kind=kind, eps=0.5, impl="reference"), [a.double(), b.double()]
    )
    loss, grads = contract.gradients(lambda a, b: identity_loss(a, b, kind=kind, eps=0.5, impl=impl), [a, b])
    assert torch.allclose(loss.double(), exact, atol=1e-6)
    for got, want in zip(grads, slopes, strict=True):
        rows = slice(None) if kind != "l2" else slice(1, None)  # the slope of a distance of 0 is any direction
        assert got.isfinite().all() and torch.allclose(got[rows].double(), want[rows], atol=1e-5)


@pytest.mark.parametrize("impl", contract.implementations("reference", "triton", "cuda", "cpu"))
@pytest.mark.parametrize("normalise", [True, False])
def test_distance_of_equal_embeddings_has_no_slope(impl: str, normalise: bool) -> None:
    impl = runs_as(impl, torch.float32)
    a, _ = pairs((8, 128), torch.float32)
    loss, grads = contract.gradients(
        lambda a, b: identity_loss(a, b, kind="l2", normalise=normalise, impl=impl), [a, a.clone()]
    )
    assert not loss.any() and not any(grad.any() for grad in grads)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_only_what_asks_gets_a_gradient(impl: str) -> None:
    impl = runs_as(impl, torch.float32)
    a, b = pairs(SHAPES["odd"], torch.float32)
    identity_loss(a.requires_grad_(), b, impl=impl).sum().backward()
    assert a.grad is not None and b.grad is None
    first = a.grad.clone()
    a.grad = None
    identity_loss(a, b.requires_grad_(), impl=impl).sum().backward()
    assert torch.equal(first, a.grad) and b.grad is not None
    assert not identity_loss(a.detach(), b.detach(), impl=impl).requires_grad


def test_second_derivative_is_refused() -> None:
    contract.require_extension()
    a, b = (t.cpu() for t in pairs(SHAPES["odd"], torch.float32))
    loss = identity_loss(a.requires_grad_(), b, impl="cpu", reduction="sum")
    (slope,) = torch.autograd.grad(loss * 2, a, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        slope.sum().backward()


def test_large_upstream_passes_through_a_half_precision_gradient() -> None:
    a, b = pairs(SHAPES["dlib"], torch.float16)
    loss = identity_loss(a.requires_grad_(), b, scale=1e-9, reduction="mean")
    (grad,) = torch.autograd.grad(loss, a, torch.tensor(1e9, device=a.device))
    assert grad.dtype == torch.float16 and (grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(8, 128), (300, 1024)], ids=str)
def test_auto_is_right_below_and_above_the_size_that_pays(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    contract.assert_matches(
        lambda a, b: identity_loss(a, b, reduction="mean"),
        lambda a, b: identity_loss(a, b, reduction="mean", impl="reference"),
        pairs(shape, dtype),
    )


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    a, b = (t.cpu().requires_grad_() for t in pairs(SHAPES["odd"], torch.float32))
    operator = torch.ops.guide_fast.identity_loss
    torch.library.opcheck(operator, (a, b, "cosine", True, False, 0.5, 1e-8, True, True, "cpu"))
    torch.library.opcheck(operator, (a, b.detach(), "l2", False, True, 1.0, 1e-8, True, False, "cpu"))
    slope, gloss = torch.randn(3, 7), torch.randn(3)
    torch.library.opcheck(torch.ops.guide_fast.identity_loss_backward, (gloss, slope, a.detach().half()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": torch.zeros(3)}, "rank 1"),
        ({"a": torch.zeros(0, 7)}, "empty"),
        ({"a": torch.zeros(3, 7, dtype=torch.int64)}, "int64"),
        ({"b": torch.zeros(3, 8)}, r"\(3, 8\)"),
        ({"b": torch.zeros(3, 7, dtype=torch.bfloat16)}, "bfloat16"),
        ({"b": torch.zeros(3, 7, device="meta")}, "meta"),
        ({"kind": "angle"}, "angle"),
        ({"reduction": "max"}, "max"),
        ({"normalise": False}, "normalise=False"),
        ({"eps": 0.0}, "eps=0"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"a": torch.zeros(3, 7), "b": torch.zeros(3, 7)} | change
    with pytest.raises(KernelError, match=said):
        identity_loss(arguments.pop("a"), arguments.pop("b"), **arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"),
    [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16"), ("triton", torch.float64, "float64")],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    a = torch.zeros(2, 2, dtype=dtype)
    with pytest.raises(ImplementationUnavailable, match=said):
        identity_loss(a, a, impl=impl)


def test_device_maths_of_a_pair_is_exact_to_rounding(tmp_path: Path) -> None:
    code = """
    extern "C" void pair(int kind, int n, const float* a, const float* b, float eps, float* loss, float* da,
                         float* db) {
      float aa = 0, bb = 0, ee = 0, ue = 0, ve = 0;
      for (int i = 0; i < n; ++i) aa += a[i] * a[i], bb += b[i] * b[i];
      const auto l = gf::identity_scale(aa, bb, true, eps);
      for (int i = 0; i < n; ++i) {
        const float u = a[i] * l.ra, v = b[i] * l.rb, e = gf::identity_difference(l, a[i], b[i]);
        ee += e * e, ue += u * e, ve += v * e;
      }
      *loss = gf::identity_pair_loss(gf_identity_kind(kind), l, aa, bb, ee);
      const auto s = gf::identity_pair_slope(gf_identity_kind(kind), l, ee, ue, ve);
      for (int i = 0; i < n; ++i) {
        const float u = a[i] * l.ra, v = b[i] * l.rb, e = gf::identity_difference(l, a[i], b[i]);
        da[i] = l.ra * (s.k * e - s.pa * u), db[i] = -l.rb * (s.k * e + s.pb * v);
      }
    }"""
    maths = contract.compile_header("identity_loss.cuh", code, tmp_path)
    maths.pair.argtypes = [ctypes.c_int, ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_float, *[ctypes.c_void_p] * 3]
    a, b = (t.cpu() for t in pairs((1, 33), torch.float32))
    for kind, name in enumerate(("cosine", "l2", "squared_l2")):
        for eps in (1e-8, 1e3):  # the second holds both lengths
            loss, da, db = torch.zeros(1), torch.zeros_like(a), torch.zeros_like(b)
            maths.pair(kind, 33, a.data_ptr(), b.data_ptr(), eps, loss.data_ptr(), da.data_ptr(), db.data_ptr())
            exact, slopes = contract.gradients(
                lambda a, b, n=name, e=eps: identity_loss(a, b, kind=n, eps=e, impl="reference"),
                [a.double(), b.double()],
                torch.ones(1),
            )
            # each sum of 33 products is off by at most 33 half ulps; a slope multiplies three of them, its two terms
            # are at most as large as the slope itself here (a, b are nearly orthogonal)
            bound = 34 * 2.0**-24
            assert abs(loss.double() - exact) <= 2 * bound * max(1.0, exact.item())
            for got, want in zip((da, db), slopes, strict=True):
                assert (got - want).abs().max() <= 2 * 3 * bound * want.abs().max()


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    a, b = (t.cpu() for t in pairs(SHAPES["wide"], torch.float32))
    loss, da = _native.identity_loss(a.numpy(), b.numpy(), kind="l2", scale=0.5)
    want, (slope,) = contract.gradients(
        lambda a: identity_loss(a, b, kind="l2", scale=0.5, impl="cpu"), [a], torch.ones(2)
    )
    assert torch.equal(torch.from_numpy(loss), want) and torch.equal(torch.from_numpy(da), slope)
    with pytest.raises(ValueError, match=r"b is \[2, 3\]"):
        _native.identity_loss(a.numpy(), b[:, :3].numpy())
