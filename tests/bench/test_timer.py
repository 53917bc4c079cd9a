"""The timer: contenders in turn, the cache overwritten before each call, the device's clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guide_fast.bench import roofline, timer


class FakeDevice:
    """A CUDA device on which calls take the time they say; nothing runs."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []

    def call(self, name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            self.now += ms
            self.log.append(name)

        return run

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: end.at - event.at
        return event


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    fake = FakeDevice()

    def sleep(cycles: int) -> None:
        fake.now += cycles / timer.CYCLES_PER_MS
        fake.log.append("busy")

    flush = SimpleNamespace(zero_=lambda: fake.log.append("flush"))
    properties = SimpleNamespace(L2_cache_size=50 << 20)
    for name, value in {
        "current_device": lambda: 0,
        "get_device_properties": lambda index: properties,
        "Event": fake.event,
        "_sleep": sleep,
        "synchronize": lambda: None,
        "memory_allocated": lambda: 100,
        "max_memory_allocated": lambda: 350,
        "reset_peak_memory_stats": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "empty", lambda *size, **options: flush)
    return fake


def test_contenders_run_in_turn_with_the_cache_overwritten(device: FakeDevice) -> None:
    measured = timer.CudaTimer(warm_up=2, repeats=6)
    timings = measured.compare({"a": device.call("a", 2.0), "b": device.call("b", 5.0)})
    assert timings["a"].device_ms["median"] == pytest.approx(2.0)
    assert timings["b"].device_ms["p80"] == pytest.approx(5.0)
    assert timings["a"].repeats == 6
    assert timings["a"].peak_bytes == 250
    rounds = device.log[2 * 3 :]  # after warm-up, one probe of each
    assert rounds == ["flush", "busy", "a", "flush", "busy", "b"] * 6


def test_slow_contenders_are_repeated_less(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(timer.time, "perf_counter", lambda: float(next(clock)))  # every probe takes seconds
    timings = timer.CudaTimer(repeats=30).compare({"a": device.call("a", 2000.0)})
    assert timings["a"].repeats == 5


def test_no_timer_calls_everything_measures_nothing() -> None:
    called = []
    assert timer.NoTimer().compare({"a": lambda: called.append("a"), "b": lambda: called.append("b")}) == {}
    assert called == ["a", "b"]


def test_roofline_is_the_nearer_ceiling() -> None:
    ceilings = roofline.Roofline(1e12, {"float16": 1e14, "tf32": 5e13})
    assert ceilings.least_seconds({"float16": 1e14}, 1.0) == pytest.approx(1.0)
    assert ceilings.least_seconds({"float16": 1.0}, 5e11) == pytest.approx(0.5)
    assert ceilings.least_seconds({"float16": 5e13, "tf32": 2e13}, 1.0) == pytest.approx(0.5 + 0.4)
    assert ceilings.bound({"float16": 1e14}, 1.0) == "flops"
    assert ceilings.bound({"float16": 1.0}, 5e11) == "bytes"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_more_work_takes_longer_on_a_device() -> None:
    small, large = (torch.randn(n << 18, device="cuda") for n in (4, 256))
    timings = timer.CudaTimer(repeats=10).compare({"small": small.clone, "large": large.clone})
    assert 0 < timings["small"].device_ms["median"] < timings["large"].device_ms["median"]
    assert timings["large"].peak_bytes >= 4 * large.numel()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_ceilings_of_a_device_are_found() -> None:
    found = roofline.measure(timer.CudaTimer(repeats=5), copy_bytes=1 << 26, sizes={"float16": 1024, "float32": 512})
    assert found.bytes_per_s > 1e9
    assert found.flops_per_s["float16"] > found.flops_per_s["float32"] > 1e9
