"""Every custom operator keeps torch.library's rules, the backward ones among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import contract
import pytest
import torch
from torch import Tensor

from guide_fast import kernels

# Operators of the compiled library, which write into what they are given; a custom one stands above each.
NATIVE = "native_"
Sample = tuple[Any, ...]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


ACTIVATION = ("lrelu", 0.2, 1.5, 0.5)
CROP = ([0.1, 0.9, 0.2, 0.8], 6, "triangle", 0, [2, 1, 0], [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], "cpu")
RESAMPLE = (8, 9, 2, 2, 1, 1, 2, 1, "cpu")


def bias_act_backward() -> Iterator[Sample]:
    for layout in (torch.contiguous_format, torch.channels_last):
        gy, y = (normal(2, 5, 7, 3, seed=seed).contiguous(memory_format=layout) for seed in (0, 1))
        yield gy, y, *ACTIVATION, "cpu"


def haar_backward() -> Iterator[Sample]:
    x, style, gy = normal(2, 12, 5, 7), normal(2, 12, seed=1), normal(2, 3, 10, 14, seed=2)
    for wanted in ((True, True), (True, False), (False, True)):
        yield gy, x, style, False, *wanted, "cpu"
    yield gy, None, None, False, True, False, "cpu"


def modulated_conv2d() -> Iterator[Sample]:
    for up, impl in ((1, "cpu"), (2, "cpu"), (1, "winograd_cpu")):
        noise = leaf(2, 1, 3 * up, 4 * up, seed=3)
        x = normal(2, 5, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
        tensors = (x, leaf(6, 5, 3, 3, seed=1), leaf(2, 5, seed=2), noise, leaf(6, seed=4), None)
        yield *tensors, up, True, False, *ACTIVATION, impl


def modulated_conv2d_backward() -> Iterator[Sample]:
    for sample in modulated_conv2d():
        tensors, (up, demodulate, premodulated), tail = sample[:5], sample[6:9], sample[9:13]
        y, demod = (t.detach() for t in torch.ops.guide_fast.modulated_conv2d(*sample))
        plain = [t.detach() for t in tensors]
        for needs in ([True] * 5, [True, False, True, False, True]):
            gy = normal(*y.shape).contiguous(memory_format=torch.channels_last)
            yield gy, y, demod, *plain, up, demodulate, premodulated, *tail, needs, sample[13]


def separable_conv2d() -> Iterator[Sample]:
    rest = (leaf(13, 1, 3, 3, seed=1), leaf(11, 13, 1, 1, seed=2), leaf(2, 13, seed=3))
    ends = (leaf(11, seed=5), None, *ACTIVATION, "cpu")
    yield leaf(2, 13, 5, 9), None, *rest, leaf(2, 1, 5, 9, seed=4), *ends
    yield leaf(2, 52, 5, 3), leaf(2, 52, seed=6), *rest, leaf(1, 1, 10, 6, seed=4), *ends


def separable_conv2d_backward() -> Iterator[Sample]:
    for sample in separable_conv2d():
        x, haar_style, depthwise, pointwise, style = (None if t is None else t.detach() for t in sample[:5])
        y = torch.ops.guide_fast.separable_conv2d(*sample).detach()
        wanted = [True, haar_style is not None, True, True, True, True, True]
        for needs in (wanted, [True] + [False] * 6):
            noise_n = len(sample[5])
            yield normal(*y.shape), y, x, haar_style, depthwise, pointwise, style, noise_n, needs, *ACTIVATION, "cpu"


def triplane_render() -> Iterator[Sample]:
    directions = torch.nn.functional.normalize(torch.tensor([0.02, 0.03, -1.0]) + 0.1 * normal(1, 4, 3), dim=-1)
    origins, near = torch.tensor([0.05, -0.1, 2.7]).expand(1, 4, 3).contiguous(), torch.full((1, 4), 2.25)
    decoder = (leaf(64, 32, seed=1), leaf(64, seed=2), leaf(33, 64, seed=3), leaf(33, seed=4))
    for deterministic in (False, True):
        first = (leaf(1, 3, 5, 7, 32), origins, directions, near, near + 1, *decoder)
        yield *first, None, None, 1.0, 6, 5, True, deterministic, "cpu"


def triplane_render_backward() -> Iterator[Sample]:
    for sample in triplane_render():
        features, depth, total, depths = (t.detach() for t in torch.ops.guide_fast.triplane_render(*sample))
        gradients = [normal(*t.shape, seed=7) for t in (features, depth, total)]
        plain = [t.detach() for t in sample[:3]] + [t.detach() for t in sample[5:9]]
        for wants in ((True, True), (True, False), (False, True)):
            yield *gradients, *plain, depths, 1.0, True, sample[15], *wants, "cpu"


def feature_distance_backward() -> Iterator[Sample]:
    a, b = ([normal(2, 5, 3, 4, seed=seed), normal(2, 9, 2, 2, seed=seed)] for seed in (0, 1))
    weights, scales = [normal(5, seed=2).abs(), normal(9, seed=2).abs()], [1.0, 0.5]
    for wanted in ((True, False), (True, True), (False, True)):
        yield normal(2), a, b, weights, scales, False, 1e-10, *wanted, "cpu"


def fused_adam() -> Iterator[Sample]:
    params, grads, m, v = ([normal(3, 4, seed=seed).abs(), normal(5, seed=seed).abs()] for seed in range(4))
    factors = [0.1, 0.999, 0.001, 0.1, 31.6, 1e-8, 0.0]
    yield params, grads, m, v, [torch.zeros(5).half()], [1], [0, 1], factors * 2, "cpu"
    yield params, grads, m, v, [], [], [0, 0], factors, "cpu"


# What each operator is checked on.
SAMPLES: dict[str, Callable[[], Iterator[Sample] | list[Sample]]] = {
    "bias_act": lambda: [
        (leaf(2, 5, 7, 3), leaf(5), *ACTIVATION, "cpu"),
        (leaf(2, 5, 7, 3), None, "linear", 0.2, 1.0, -1.0, "cpu"),
    ],
    "bias_act_backward": bias_act_backward,
    "face_crop": lambda: [(leaf(2, 3, 13, 9), *CROP)],
    "face_crop_backward": lambda: [(normal(2, 3, 6, 6), 13, 9, *CROP)],
    "feature_distance": lambda: [([leaf(2, 5, 3, 4)], [leaf(2, 5, 3, 4, seed=1)], [], [0.5], False, 1e-10, "cpu")],
    "feature_distance_backward": feature_distance_backward,
    "fused_adam": fused_adam,
    "haar": lambda: [(leaf(2, 12, 5, 7), leaf(2, 12, seed=1), "cpu"), (normal(2, 12, 5, 7), None, "cpu")],
    "haar_backward": haar_backward,
    "identity_loss": lambda: [
        (leaf(3, 7), leaf(3, 7, seed=1), "cosine", True, False, 0.5, 1e-8, True, True, "cpu"),
        (leaf(3, 7), normal(3, 7, seed=1), "l2", False, True, 1.0, 1e-8, True, False, "cpu"),
    ],
    "identity_loss_backward": lambda: [
        (normal(3), normal(3, 7), normal(3, 7).half()),
        (normal(), normal(3, 7), normal(3, 7)),
    ],
    "modulated_conv2d": modulated_conv2d,
    "modulated_conv2d_backward": modulated_conv2d_backward,
    "separable_conv2d": separable_conv2d,
    "separable_conv2d_backward": separable_conv2d_backward,
    "triplane_render": triplane_render,
    "triplane_render_backward": triplane_render_backward,
    "upfirdn2d": lambda: [(leaf(2, 3, 5, 4), normal(4, 3, seed=1), *RESAMPLE)],
}


def registered() -> set[str]:
    """The custom operators of the library, all of its modules imported."""
    assert kernels.__all__
    names = {schema.name.partition("::") for schema in torch._C._jit_get_all_schemas()}
    return {name for space, _, name in names if space == "guide_fast" and not name.startswith(NATIVE)}


def unchecked(names: set[str]) -> set[str]:
    return names - SAMPLES.keys()


def test_every_operator_has_samples() -> None:
    assert not unchecked(registered()), f"{sorted(unchecked(registered()))} lack samples here"
    assert registered() == SAMPLES.keys()


def test_operator_without_samples_is_named() -> None:
    assert unchecked({*SAMPLES, "wavelet_backward"}) == {"wavelet_backward"}


@pytest.mark.parametrize("name", SAMPLES)
def test_operator_keeps_torch_library_rules(name: str) -> None:
    contract.require_extension()
    samples = list(SAMPLES[name]())
    assert samples
    for sample in samples:
        torch.library.opcheck(getattr(torch.ops.guide_fast, name), sample)
