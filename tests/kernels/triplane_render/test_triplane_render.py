"""triplane_render: every implementation against the reference, operator rules, bad input."""

from __future__ import annotations

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, _triton, triplane_render

from .scene import SCENES, Scene


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("name", SCENES)
def test_implementation_matches_the_reference(impl: str, dtype: torch.dtype, name: str) -> None:
    if impl == "cpu":
        contract.require_extension()
        if dtype != torch.float32:
            impl = "auto"  # converts
        if contract.DEVICE != "cpu":
            pytest.skip("the inputs are on a GPU")
    scene = SCENES[name]
    all_else = {"box_warp": 1.2, "ray_start": 2.1, "white_back": True} | scene.draws()
    for settings in ({}, all_else) if dtype == torch.float32 else (all_else,):
        contract.assert_matches(
            lambda *t, s=settings: scene.render(*t, **s, impl=impl),
            lambda *t, s=settings: scene.render(*t, **s, impl="reference"),
            scene.tensors(dtype),
            floor=64.0,  # of 96 samples' roundings: the reference's own order of additions is one of many
        )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("impl", contract.implementations("triton"))
def test_tiles_of_every_gpu_give_the_gradients(
    impl: str, deterministic: bool, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_triton, "has_wide_products", lambda x: wide)
    scene = SCENES["odd"]
    contract.assert_matches(
        lambda *t: scene.render(*t, impl=impl, deterministic=deterministic),
        lambda *t: scene.render(*t, impl="reference"),
        scene.tensors(torch.float16),
        floor=64.0,
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_only_the_wanted_gradients_are_made(impl: str) -> None:
    contract.require_extension()
    scene = SCENES["odd"]
    exact = contract.gradients(lambda *t: scene.render(*t, impl="reference"), scene.tensors())[1]
    for wanted in ([0], [1, 2, 3, 4], [3]):
        tensors = [t.requires_grad_(i in wanted) for i, t in enumerate(scene.tensors())]
        out = scene.render(*tensors, impl=impl)
        gy = torch.randn(out.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64).to(out)
        out.backward(gy)
        for i, t in enumerate(tensors):
            assert (t.grad is not None) == (i in wanted)
            if i in wanted:
                assert torch.allclose(t.grad, exact[i], atol=2e-4 * exact[i].abs().max().item())


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_planes_may_lie_channels_last_inside_one_image(impl: str) -> None:
    contract.require_extension()
    scene = SCENES["odd"]
    planes, *decoder = scene.tensors()
    image = planes.flatten(1, 2).contiguous(memory_format=torch.channels_last)  # [N, 96, H, W] as a backbone leaves it
    assert torch.equal(
        scene.render(planes, *decoder, impl=impl), scene.render(image.unflatten(1, (3, 32)), *decoder, impl=impl)
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_deterministic_gradients_do_not_change_by_a_bit(impl: str) -> None:
    contract.require_extension()
    scene = SCENES["odd"]
    run = lambda: contract.gradients(  # noqa: E731
        lambda *t: scene.render(*t, impl=impl, deterministic=True), scene.tensors()
    )[1]
    first, second = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    plain = contract.gradients(lambda *t: scene.render(*t, impl=impl), scene.tensors())[1]
    assert all(torch.allclose(a, b, atol=1e-5 * b.abs().max().item()) for a, b in zip(first, plain, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_native_cpu_gradients_do_not_depend_on_the_threads(threads: int) -> None:
    contract.require_extension()
    scene = Scene(2, 300, 9, 8, 6, 5)  # more than one thread's share of rays
    run = lambda: contract.gradients(lambda *t: scene.render(*t, impl="cpu"), [t.cpu() for t in scene.tensors()])  # noqa: E731
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        out, grads = run()
        torch.set_num_threads(threads)
        again, again_grads = run()
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, again_grads, strict=True))


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_nan_in_a_plane_reaches_the_output(impl: str) -> None:
    contract.require_extension()
    scene = SCENES["eg3d"]
    planes, *decoder = scene.tensors()
    planes[:, 1] = float("nan")
    want = scene.render(planes, *decoder, impl="reference").isnan()
    assert want.any() and torch.equal(scene.render(planes, *decoder, impl=impl).isnan()[..., :32], want[..., :32])


def test_other_sizes_than_the_kernels_take_run_on_the_reference() -> None:
    scene = Scene(1, 2, 4, 4, 5, 3)
    tensors = scene.tensors(channels=6, hidden=8, out=3)
    assert torch.equal(scene.render(*tensors), scene.render(*tensors, impl="reference"))


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    scene = SCENES["odd"]
    planes, *decoder = (t.cpu().requires_grad_() for t in scene.tensors())
    last = planes.detach().permute(0, 1, 3, 4, 2).contiguous().requires_grad_()
    origins, directions = (t.cpu() for t in scene.rays_into_the_box())
    near = torch.full(origins.shape[:2], 2.25)
    draws = scene.draws()
    jitter, u = draws["jitter"][..., 0].cpu(), draws["u"].cpu()
    for extra in ((jitter, u, 1.0, 6, 5, True), (None, None, 1.3, 6, 5, False)):
        torch.library.opcheck(
            torch.ops.guide_fast.triplane_render,
            (last, origins, directions, near, near + 1, *decoder, *extra, False, "cpu"),
        )


PLANES, RAYS = (1, 3, 32, 4, 4), (1, 2, 3)


def decoder_of(dtype: torch.dtype = torch.float32, **change: Tensor) -> tuple[Tensor, ...]:
    shapes = {"w1": (64, 32), "b1": (64,), "w2": (33, 64), "b2": (33,)}
    return tuple(change.get(name, torch.zeros(shape, dtype=dtype)) for name, shape in shapes.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"planes": torch.zeros(3, 32, 4, 4)}, "rank 4"),
        ({"planes": torch.zeros(1, 2, 32, 4, 4)}, r"\(1, 2, 32, 4, 4\)"),
        ({"planes": torch.zeros(0, 3, 32, 4, 4)}, "empty"),
        ({"planes": torch.zeros(PLANES, dtype=torch.int32)}, "int32"),
        ({"planes": None}, "NoneType"),
        ({"origins": torch.zeros(1, 2, 4)}, r"\(1, 2, 4\)"),
        ({"origins": torch.zeros(2, 2, 3)}, r"\(2, 2, 3\)"),
        ({"origins": torch.zeros(1, 0, 3), "directions": torch.zeros(1, 0, 3)}, "empty"),
        ({"origins": torch.zeros(RAYS, dtype=torch.float16)}, "float16"),
        ({"origins": torch.zeros(RAYS, device="meta")}, "meta"),
        ({"origins": torch.zeros(RAYS, requires_grad=True)}, "detach"),
        ({"directions": torch.zeros(1, 3, 3)}, r"\(1, 3, 3\)"),
        ({"decoder": torch.zeros(3)}, "Tensor"),
        ({"decoder": (torch.zeros(64, 32),)}, "1 entries"),
        ({"decoder": decoder_of(w1=torch.zeros(64, 31))}, r"\(64, 31\)"),
        ({"decoder": decoder_of(b1=torch.zeros(63))}, r"\(63,\)"),
        ({"decoder": decoder_of(w2=torch.zeros(33, 63))}, r"\(33, 63\)"),
        ({"decoder": decoder_of(w2=torch.zeros(1, 64))}, "1 rows"),
        ({"decoder": decoder_of(b2=torch.zeros(32))}, r"\(32,\)"),
        ({"decoder": decoder_of(torch.float16)}, "w1 .*float16 but planes is float32"),
        ({"box_warp": 0.0}, "box_warp=0"),
        ({"ray_start": 3.3}, "ray_start=3.3"),
        ({"ray_start": torch.zeros(1, 3)}, r"\(1, 3\)"),
        ({"ray_end": torch.full((1, 2), 3.3, requires_grad=True)}, "detach"),
        ({"depth_resolution": 3}, "depth_resolution=3"),
        ({"depth_resolution": 1, "depth_resolution_importance": 0}, "depth_resolution=1"),
        ({"depth_resolution_importance": -1}, "importance=-1"),
        ({"jitter": torch.zeros(1, 2, 47, 1)}, r"\(1, 2, 47, 1\)"),
        ({"u": torch.zeros(1, 2, 47)}, r"\(1, 2, 47\)"),
        ({"u": torch.zeros(3, 48)}, r"\(3, 48\)"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {
        "planes": torch.zeros(PLANES),
        "origins": torch.zeros(RAYS),
        "directions": torch.zeros(RAYS),
        "decoder": decoder_of(),
    } | change
    positional = [arguments.pop(name) for name in ("planes", "origins", "directions", "decoder")]
    with pytest.raises(KernelError, match=said):
        triplane_render(*positional, **arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "change", "said"),
    [
        ("cuda", torch.float32, {}, "on cpu"),
        ("cpu", torch.float16, {}, "float16"),
        ("triton", torch.float64, {}, "float64"),
        ("triton", torch.float32, {"depth_resolution": 250}, "298 samples"),
        ("triton", torch.float32, {"channels": 16}, "16 channels"),
        ("triton", torch.float32, {"hidden": 32}, "32 hidden units"),
        ("triton", torch.float32, {"out": 3}, "3 colours"),
    ],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, change: dict, said: str) -> None:
    sizes = {name: change[name] for name in ("channels", "hidden", "out") if name in change}
    settings = {name: change[name] for name in change if name not in sizes}
    planes, *decoder = (t.cpu() for t in Scene(1, 2, 4, 4, 48, 48).tensors(dtype, **sizes))
    with pytest.raises(ImplementationUnavailable, match=said):
        triplane_render(planes, torch.zeros(RAYS), torch.ones(RAYS), tuple(decoder), impl=impl, **settings)
