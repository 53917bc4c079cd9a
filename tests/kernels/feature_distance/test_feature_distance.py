"""feature_distance: every implementation against the reference, bad input, the device maths."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, feature_distance

# each a list of taps [N, C, H, W]
SHAPES = {
    "one": [(1, 1, 1, 1)],
    "odd": [(2, 5, 7, 3), (2, 9, 3, 5)],
    "efficientnet": [(2, 16, 16, 16), (2, 24, 8, 8), (2, 112, 2, 2)],
    "deep": [(1, 700, 3, 5)],  # more channels than one tile holds
    "many pixels": [(3, 2, 17, 33)],
}
SETTINGS = {
    "plain": {},
    "vectors": {"weights": "vectors"},
    "numbers": {"weights": "numbers"},
    "normalised": {"normalised_b": True, "weights": "vectors"},
}


def maps(
    shapes: list[tuple[int, ...]], dtype: torch.dtype, *, nhwc: bool = False, alike: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    random = torch.Generator().manual_seed(3)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    a = [torch.randn(shape, generator=random) + 0.3 for shape in shapes]
    b = [x + alike * torch.randn(x.shape, generator=random) for x in a]
    return tuple([t.to(contract.DEVICE, dtype).contiguous(memory_format=layout) for t in taps] for taps in (a, b))


def settings_for(settings: dict, shapes: list[tuple[int, ...]]) -> dict:
    random = torch.Generator().manual_seed(4)
    weights = {
        "vectors": [torch.rand(shape[1], generator=random).to(contract.DEVICE) for shape in shapes],
        "numbers": [0.5 + i for i in range(len(shapes))],
    }
    return settings | ({"weights": weights[settings["weights"]]} if "weights" in settings else {})


def joined(taps: int, **settings: object):
    """feature_distance on a flat list of inputs, as the assertions call it."""
    return lambda *flat: feature_distance(flat[:taps], flat[taps:], **settings)


def skip_unless_it_runs(impl: str, dtype: torch.dtype) -> None:
    if impl == "cpu":
        contract.require_extension()
        if contract.DEVICE != "cpu" or dtype != torch.float32:
            pytest.skip("the native CPU path computes in float32 on the CPU")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_reference_gradients_match_finite_differences(settings: dict) -> None:
    a, b = maps(SHAPES["odd"], torch.float64)
    contract.assert_gradcheck(joined(2, impl="reference", **settings_for(settings, SHAPES["odd"])), [*a, *b])


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
def test_implementation_matches_the_reference(
    impl: str, dtype: torch.dtype, shapes: list[tuple[int, ...]], settings: dict, nhwc: bool
) -> None:
    skip_unless_it_runs(impl, dtype)
    if shapes == SHAPES["one"]:
        settings = {"normalised_b": True}  # one channel has no direction, hence no slope, unless b is as it is
    settings = settings_for(settings, shapes)
    a, b = maps(shapes, dtype, nhwc=nhwc)
    contract.assert_matches(
        joined(len(a), impl=impl, **settings), joined(len(a), impl="reference", **settings), [*a, *b]
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("gradient_of_b", [False, True])
def test_one_teacher_is_compared_with_every_image(impl: str, gradient_of_b: bool) -> None:
    skip_unless_it_runs(impl, torch.float32)
    a, b = maps([(3, 6, 4, 5)], torch.float32)
    teacher = b[0][:1].contiguous()
    if gradient_of_b:
        contract.assert_matches(joined(1, impl=impl), joined(1, impl="reference"), [*a, teacher])
    else:
        contract.assert_matches(
            lambda x: feature_distance([x], [teacher.to(x)], impl=impl),
            lambda x: feature_distance([x], [teacher.to(x)], impl="reference"),
            a,
        )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_maps_of_different_layout_are_compared(impl: str) -> None:
    skip_unless_it_runs(impl, torch.float32)
    a, b = maps([(2, 6, 4, 5)], torch.float32)
    a = [t.contiguous(memory_format=torch.channels_last) for t in a]
    contract.assert_matches(joined(1, impl=impl), joined(1, impl="reference"), [*a, *b])


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
def test_alike_maps_keep_their_digits(impl: str, nhwc: bool) -> None:
    skip_unless_it_runs(impl, torch.float32)
    a, b = maps([(1, 24, 6, 6)], torch.float32, nhwc=nhwc, alike=1e-4)
    exact = feature_distance([t.double() for t in a], [t.double() for t in b], impl="reference")
    assert (feature_distance(a, b, impl=impl) - exact).abs() <= 2e-3 * exact  # of u - v, each off by 2^-24 of 1


@pytest.mark.parametrize("impl", contract.implementations("reference", "triton", "cuda", "cpu"))
def test_pixel_without_features_has_a_finite_gradient(impl: str) -> None:
    skip_unless_it_runs(impl, torch.float32)
    a, b = maps([(1, 4, 2, 2)], torch.float32)
    a[0][:, :, 0, 0] = 0
    distance, grads = contract.gradients(joined(1, impl=impl, eps=1e-4), [*a, *b])
    exact, slopes = contract.gradients(joined(1, impl="reference", eps=1e-4), [t.double() for t in (*a, *b)])
    assert torch.allclose(distance.double(), exact)
    for got, want in zip(grads, slopes, strict=True):
        assert torch.allclose(got.double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", contract.implementations("reference", "triton", "cuda", "cpu"))
@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
def test_taps_alike_are_at_zero(impl: str, nhwc: bool) -> None:
    skip_unless_it_runs(impl, torch.float32)
    a, _ = maps(SHAPES["efficientnet"], torch.float32, nhwc=nhwc)
    distance, grads = contract.gradients(joined(3, impl=impl), [*a, *a])
    assert not distance.any() and not any(grad.any() for grad in grads)


def test_teacher_normalised_before_gives_the_same() -> None:
    a, b = maps(SHAPES["efficientnet"], torch.float32)
    units = [t * torch.rsqrt(t.square().sum(dim=1, keepdim=True) + 1e-10) for t in b]
    assert torch.allclose(feature_distance(a, b), feature_distance(a, units, normalised_b=True), atol=1e-6)


def test_engine_distance_is_the_mean_over_taps() -> None:
    from guide_fast.models.perceptual import PerceptualNetwork

    a, b = maps(SHAPES["efficientnet"], torch.float32)
    engine = PerceptualNetwork.distance(None, a, b)
    taps = []
    for x, y in zip(a, b, strict=True):
        u, v = (t.double() / (t.double().square().sum(1, keepdim=True) + 1e-10).sqrt() for t in (x, y))
        taps.append((u - v).square().sum(1).mean((1, 2)))
    assert torch.allclose(engine.double(), torch.stack(taps).mean(0), atol=1e-6)


def test_weights_that_learn_take_the_reference() -> None:
    a, b = maps([(1, 4, 2, 2)], torch.float32)
    weights = [torch.rand(4, device=contract.DEVICE, requires_grad=True)]
    feature_distance(a, b, weights=weights).sum().backward()
    assert weights[0].grad is not None
    with pytest.raises(ImplementationUnavailable, match="weights"):
        feature_distance(a, b, weights=weights, impl="triton")


def test_only_what_asks_gets_a_gradient() -> None:
    contract.require_extension()
    a, b = maps([(2, 4, 3, 3)], torch.float32)
    feature_distance([a[0].requires_grad_()], b).sum().backward()
    assert a[0].grad is not None and b[0].grad is None


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    a, b = maps(SHAPES["odd"], torch.float32)
    a, b = [t.cpu().requires_grad_() for t in a], [t.cpu() for t in b]
    weights = [torch.rand(5), torch.rand(9)]
    operator = torch.ops.guide_fast.feature_distance
    torch.library.opcheck(operator, (a, b, weights, [1.0, 1.0], False, 1e-10, "cpu"))
    torch.library.opcheck(operator, (a, [t.requires_grad_() for t in b], [], [0.5, 2.0], True, 1e-10, "cpu"))
    flat = ([t.detach() for t in a], [t.detach() for t in b])
    backward = torch.ops.guide_fast.feature_distance_backward
    torch.library.opcheck(backward, (torch.randn(2), *flat, weights, [1.0, 1.0], False, 1e-10, True, False, "cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": []}, "0 taps"),
        ({"a": [torch.zeros(2, 4, 3, 3)] * 17}, "17 taps"),
        ({"b": [torch.zeros(2, 4, 3, 3)] * 2}, "2 taps"),
        ({"a": [torch.zeros(2, 4, 3)]}, "rank 3"),
        ({"a": [torch.zeros(0, 4, 3, 3)]}, "empty"),
        ({"b": [torch.zeros(2, 5, 3, 3)]}, r"\(2, 5, 3, 3\)"),
        ({"b": [torch.zeros(3, 4, 3, 3)]}, "3 images"),
        ({"b": [torch.zeros(2, 4, 3, 3, dtype=torch.float16)]}, "float16"),
        ({"b": [torch.zeros(2, 4, 3, 3, device="meta")]}, "meta"),
        ({"weights": [torch.ones(3)]}, r"\(3,\)"),
        ({"weights": [1.0, 1.0]}, "2 entries"),
        ({"weights": [torch.ones(4, device="meta")]}, "meta"),
        ({"eps": 0.0}, "eps=0"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"a": [torch.zeros(2, 4, 3, 3)], "b": [torch.zeros(2, 4, 3, 3)]} | change
    with pytest.raises(KernelError, match=said):
        feature_distance(arguments.pop("a"), arguments.pop("b"), **arguments)


def test_taps_of_unequal_batch_or_kind_are_named() -> None:
    a = [torch.zeros(2, 4, 3, 3), torch.zeros(1, 4, 3, 3)]
    with pytest.raises(KernelError, match="1 images"):
        feature_distance(a, a)
    with pytest.raises(KernelError, match="mixes"):
        feature_distance(a[:1] * 2, a[:1] * 2, weights=[1.0, torch.ones(4)])


@pytest.mark.parametrize(
    ("impl", "dtype", "said"),
    [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16"), ("triton", torch.float64, "float64")],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    taps = [torch.zeros(1, 2, 2, 2, dtype=dtype)]
    with pytest.raises(ImplementationUnavailable, match=said):
        feature_distance(taps, taps, impl=impl)


def test_device_maths_of_a_pixel_is_exact_to_rounding(tmp_path: Path) -> None:
    code = """
    extern "C" float pixel(int n, const float* a, const float* b, const float* w, float g, float* ga) {
      float aa = 0, bb = 0, distance = 0, along = 0;
      for (int c = 0; c < n; ++c) aa += a[c] * a[c], bb += b[c] * b[c];
      const float ra = gf::feature_inverse(aa, 1e-10f), rb = gf::feature_inverse(bb, 1e-10f);
      const auto e = [&](int c) { return w[c] * gf::feature_difference(a[c], b[c], ra, rb / ra); };
      for (int c = 0; c < n; ++c) {
        distance += e(c) * gf::feature_difference(a[c], b[c], ra, rb / ra);
        along += a[c] * ra * e(c);
      }
      for (int c = 0; c < n; ++c) ga[c] = gf::feature_slope(g, ra, e(c), a[c] * ra, along);
      return distance;
    }
    extern "C" int block(int64_t first, int64_t second, int64_t index, int64_t* out) {
      gf_feature_distance args{};
      args.taps = 2;
      args.tap[0].pixels = first, args.tap[1].pixels = second;
      const auto found = gf::feature_block_at(args, index);
      out[0] = found.tap, out[1] = found.begin, out[2] = found.end;
      return int(gf::feature_blocks(args));
    }"""
    maths = contract.compile_header("feature_distance.cuh", code, tmp_path)
    maths.pixel.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_float, ctypes.c_void_p]
    maths.pixel.restype = ctypes.c_float
    a, b = (taps[0].cpu() for taps in maps([(1, 33, 1, 1)], torch.float32))
    weight, ga = torch.rand(33), torch.zeros_like(a)
    distance = maths.pixel(33, a.data_ptr(), b.data_ptr(), weight.data_ptr(), 2 * 0.7, ga.data_ptr())
    exact, (slope,) = contract.gradients(
        lambda x: feature_distance([x], [b.double()], weights=[weight.double()], impl="reference"),
        [a.double()],
        torch.tensor([0.7]),
    )
    bound = 34 * 2.0**-24  # a sum of 33 terms; three of them enter a slope
    assert abs(distance - exact.item()) <= 3 * bound * exact.item()
    assert (ga - slope).abs().max() <= 2 * 3 * bound * slope.abs().max()
    out = (ctypes.c_int64 * 3)()
    maths.block.argtypes = [*[ctypes.c_int64] * 3, ctypes.c_void_p]
    found = [(maths.block(130, 128, i, out), *out) for i in range(3)]
    assert found == [(3, 0, 0, 128), (3, 0, 128, 130), (3, 1, 0, 128)]


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    a, b = ([t.cpu() for t in taps] for taps in maps(SHAPES["efficientnet"], torch.float32))
    got = _native.feature_distance([t.numpy() for t in a], [t.numpy() for t in b], scales=[0.5, 1.0, 2.0])
    assert torch.equal(torch.from_numpy(got), feature_distance(a, b, weights=[0.5, 1.0, 2.0], impl="cpu"))
    with pytest.raises(ValueError, match="tap 1 of a"):
        _native.feature_distance([t.numpy() for t in a], [b[0].numpy()] * 3)
    with pytest.raises(ValueError, match="0 with 3"):
        _native.feature_distance([], [t.numpy() for t in b])
