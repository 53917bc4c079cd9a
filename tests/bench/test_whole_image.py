"""Whole images as benchmarks: their contenders compute the same, nothing in a forward pass waits for the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guide_fast.bench.baselines.stylegan2_eager import eager_synthesis
from guide_fast.bench.capture import captured
from guide_fast.bench.generators import bench_eg3d_image, bench_stylegan2_image
from guide_fast.bench.generators.whole_image import images_per_second, milliseconds, random_weights
from guide_fast.models.eg3d import EG3D
from guide_fast.models.stylegan2 import StyleGAN2

BENCHMARKS = (bench_eg3d_image, bench_stylegan2_image)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait: a number read from a tensor; on the device `meta` also tensors of the host.

    A number that Python has just made a tensor of is read without waiting.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.made = device, []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        name = str(function)
        if "_local_scalar_dense" in name and not any(tensors[0] is made for made in self.made):
            raise AssertionError(f"{name} waits for the device")
        if self.device == "meta" and any(t.device.type == "cpu" and t.ndim for t in tensors):
            raise AssertionError(f"{name} reads a tensor of the host")
        out = function(*args, **(kwargs or {}))
        if "lift_fresh" in name:
            self.made.append(out)
        return out


def generators() -> Iterator[Any]:
    yield random_weights(EG3D(bench_eg3d_image.config(bench_eg3d_image.SMOKE)))
    yield random_weights(StyleGAN2(bench_stylegan2_image.config(16)))


@pytest.mark.parametrize("impl", ["auto", "reference"])
@torch.no_grad()
def test_no_number_is_read_from_a_tensor(impl: str) -> None:
    for generator in generators():
        ws = torch.randn(2, generator.num_ws, generator.w_dim)
        options = {} if generator.cameras is None else {"c": generator.cameras.frontal}
        generator.impl = impl
        with NoWaiting("cpu"):
            generator.synthesis(ws, **options)


@torch.no_grad()
def test_nothing_is_copied_between_host_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no device `meta`
    for generator in generators():
        ws = torch.randn(2, generator.num_ws, generator.w_dim, device="meta")
        options = {} if generator.cameras is None else {"c": generator.cameras.frontal.to("meta")}
        generator.to("meta").impl = "reference"
        with NoWaiting("meta"):
            assert generator.synthesis(ws, **options).image.device.type == "meta"


def test_waiting_is_refused() -> None:
    x = torch.ones(2)
    with NoWaiting("cpu"):
        assert torch.tensor(3.0).item() == 3
        with pytest.raises(AssertionError, match="waits"):
            x.sum().item()
    with NoWaiting("meta"), pytest.raises(AssertionError, match="of the host"):
        x.to("meta")


@torch.no_grad()
def test_half_precision_of_the_eager_formulation_is_near_the_full() -> None:
    generator = random_weights(StyleGAN2(bench_stylegan2_image.config(16)))
    network = generator.synthesis_network
    weights = dict(network.named_parameters()) | dict(network.named_buffers())
    weights = {name: value for name, value in weights.items() if not name.endswith("resample")}
    ws = torch.randn(2, generator.num_ws, generator.w_dim, generator=torch.Generator().manual_seed(1))
    full, half = (eager_synthesis(weights, ws, architecture="skip", clamp=256.0, half=start) for start in (None, 8))
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.01 * full.abs().max()


@pytest.mark.parametrize("benchmark_of", BENCHMARKS)
def test_published_sizes_are_described_without_being_built(benchmark_of: Any) -> None:
    for case in benchmark_of.cases():
        (work,) = case.works
        assert work.flops == pytest.approx(sum(work.units.values()))
        assert set(work.units) == {"float16", "tf32"}
    eg3d = next(iter(bench_eg3d_image.cases())).works[0]
    assert eg3d.flops == pytest.approx((93.1 + 14.6 + 196) * 1e9, rel=0.02)


def test_goals_take_the_shorter_of_call_and_graph() -> None:
    contenders = {name: {"device_ms": {"median": ms}} for name, ms in (("ours", 2.0), ("ours, CUDA graph", 1.6))}
    contenders["eager formulation"] = {"device_ms": {"median": 0.1}}
    rows = [{"shape": {"size": 512, "batch": 8}, "contenders": contenders, "speedup": {}}]
    assert images_per_second(512, 8)(rows) == pytest.approx(5000)
    assert milliseconds(512, 8)(rows) == 1.6
    assert milliseconds(512, 1)(rows) is None
    assert images_per_second(1024, 8)([{"gate": "failed: x", "shape": {"size": 1024, "batch": 8}}]) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@torch.no_grad()
def test_image_can_be_recorded_as_a_graph() -> None:
    for generator in generators():
        generator.to("cuda")
        options = {} if generator.cameras is None else {"c": generator.cameras.frontal.to("cuda")}
        first, second = (torch.randn(1, generator.num_ws, generator.w_dim, device="cuda") for _ in range(2))
        replay = captured(lambda ws, g=generator, o=options: g.synthesis(ws, **o).image, (first,))
        for ws in (first, second):
            torch.testing.assert_close(replay(ws), generator.synthesis(ws, **options).image)
