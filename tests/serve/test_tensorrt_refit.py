"""What goes into an engine is complete, exact, in the engine's own form; what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_graphs import modulated
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export.cuda_driver import Gpu, found
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Messages, Tensorrt
from guide_fast.export.tensorrt_plan import PlanSettings, build
from guide_fast.serve.tensorrt_refit import (
    check_version,
    engine_settings,
    every_value,
    fitting,
    invalidity,
    of_part,
    plans_for,
    refit,
    unreadable,
)


class Refitter:
    """Behaves as the documentation of `Refitter` says."""

    def __init__(self, trt: Any, weights: Mapping[str, np.ndarray], merged: Mapping[str, str] = {}) -> None:
        self.trt, self.weights, self.merged = trt, dict(weights), merged
        self.given: dict[str, Any] = {}
        self.works = True

    def get_all_weights(self) -> list[str]:
        return [*self.weights]

    def get_weights_prototype(self, name: str) -> Any:
        if name not in self.weights:
            return SimpleNamespace(dtype=self.trt.float32, size=-1)
        return self.trt.Weights(self.weights[name])

    def set_named_weights(self, name: str, weights: Any) -> bool:
        assert isinstance(weights, self.trt.Weights)
        expected = self.get_weights_prototype(name)
        self.given[name] = weights
        return bool(weights.dtype == expected.dtype and weights.size == expected.size)

    def get_missing_weights(self) -> list[str]:
        return [other for name, other in self.merged.items() if name in self.given and other not in self.given]

    def refit_cuda_engine(self) -> bool:
        if not self.works or self.get_missing_weights():
            return False
        for name, weights in self.given.items():
            self.weights[name] = np.array(weights.numpy()).reshape(self.weights[name].shape)
        return True


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def nothing(name: str) -> np.ndarray:
    raise KeyError(name)


def exported(**manifest: Any) -> ExportedGenerator:
    parts = [
        {
            "name": name,
            "file": f"{name}.sm{capability}.plan",
            "sha256": "",
            "compute_capability": capability,
            "inputs": [],
            "outputs": [],
        }
        for name in ("mapping", "synthesis")
        for capability in (86, 120)
    ]
    entries = [
        {"part": "synthesis", "tensor": "w", "source": "conv.weight", "rule": "as_is", "dtype": "float16"},
        {"part": "synthesis", "tensor": "q", "source": "conv.weight", "rule": "sum_of_squares", "dtype": "float32"},
        {"part": "mapping", "tensor": "w", "source": "fc.weight", "rule": "as_is", "factor": 2, "dtype": "float32"},
    ]
    settings = {"version": "1.7.1.116", "weights": "refit", "stripped": False, "max_batch": 8}
    described = {"runtime": "tensorrt_rtx", "parts": parts, "refit": entries, "tensorrt": settings, **manifest}
    tensors = {"conv.weight": numbers(4, 3, 3, 3), "fc.weight": numbers(2, 2, seed=1)}
    return ExportedGenerator(Path("engines"), described, "sha", (), tensors)


def test_a_refit_gives_every_value_and_what_was_merged_with_it(tensorrt_rtx: Tensorrt) -> None:
    before = {"a": numbers(3, 2), "b": numbers(4, dtype=np.float16), "c": numbers(1), "d": numbers(2)}
    refitter = Refitter(tensorrt_rtx.module, before, merged={"a": "c"})
    values = {"a": numbers(2, 3, seed=5).T, "b": numbers(4, seed=6, dtype=np.float16)}  # a is not dense
    others = {"c": numbers(1, seed=7)}
    given = refit(tensorrt_rtx, refitter, values, part="synthesis", messages=Messages(), other=others.__getitem__)
    assert given == ("a", "b", "c")
    for name, value in (values | others).items():
        assert np.array_equal(refitter.weights[name], value)
    assert np.array_equal(refitter.weights["d"], before["d"])


def test_a_weight_that_nobody_has_is_named(tensorrt_rtx: Tensorrt) -> None:
    refitter = Refitter(tensorrt_rtx.module, {"a": numbers(2), "folded": numbers(2)}, merged={"a": "folded"})
    with pytest.raises(GuideFastError, match=r"weight 'folded' of part 'mapping' is missing: .*--weights inputs"):
        refit(tensorrt_rtx, refitter, {"a": numbers(2)}, part="mapping", messages=Messages(), other=nothing)
    with pytest.raises(IntegrityError, match="the engine of part 'mapping' has no refittable weight 'z'"):
        refit(tensorrt_rtx, refitter, {"z": numbers(2)}, part="mapping", messages=Messages(), other=nothing)


def test_a_failed_refit_says_why(tensorrt_rtx: Tensorrt) -> None:
    refitter = Refitter(tensorrt_rtx.module, {"a": numbers(2)})
    refitter.works = False
    with pytest.raises(GuideFastError, match="part 'mapping' was not refitted: out of memory; the session goes on"):
        refit(
            tensorrt_rtx,
            refitter,
            {"a": numbers(2)},
            part="mapping",
            messages=Messages(["out of memory"]),
            other=nothing,
        )


@pytest.mark.parametrize("value", [numbers(3), numbers(4, dtype=np.float16), numbers(4).astype(np.float64)])
def test_nothing_is_rounded_or_cut_to_fit(value: np.ndarray) -> None:
    with pytest.raises(IntegrityError, match=r"weight 'w' is \d numbers of float\d\d, the engine has 4 of float32"):
        fitting("w", value, dtype=np.float32, count=4)


def test_dense_values_go_in_as_they_are() -> None:
    value = numbers(2, 3)
    assert fitting("w", value, dtype=np.float32, count=6) is value
    assert fitting("w", value.T, dtype=np.float32, count=6).flags.c_contiguous


def test_every_value_follows_from_the_weights_by_its_rule() -> None:
    source = exported()
    values, tensors = every_value(source), source.tensors
    assert {*values} == {("synthesis", "w"), ("synthesis", "q"), ("mapping", "w")}
    assert values["synthesis", "w"].dtype == np.float16
    assert np.allclose(values["synthesis", "q"], (tensors["conv.weight"] ** 2).sum((2, 3)))
    assert np.array_equal(values["mapping", "w"], 2 * tensors["fc.weight"])
    assert {*of_part(values, "synthesis")} == {"w", "q"}


def test_the_plans_are_those_of_the_gpu_in_their_order() -> None:
    plans = plans_for(exported(), Gpu("RTX 3090", 86))
    assert [(name, part.path.name) for name, part in plans.items()] == [
        ("mapping", "mapping.sm86.plan"),
        ("synthesis", "synthesis.sm86.plan"),
    ]


def test_engines_of_another_gpu_are_refused() -> None:
    with pytest.raises(UsageError, match=r"for compute capability 86, 120, H100 has 90; .* --compute-capability 90"):
        plans_for(exported(), Gpu("H100", 90))


def test_engines_of_another_version_are_refused(tensorrt_rtx: Tensorrt) -> None:
    check_version(exported(tensorrt={"version": tensorrt_rtx.version}), tensorrt_rtx)
    with pytest.raises(UsageError, match=r"built by TensorRT for RTX 1.4.0.76, here is .*; export .*, or pip install"):
        check_version(exported(tensorrt={"version": "1.4.0.76"}), tensorrt_rtx)


def test_an_onnx_export_has_no_engines() -> None:
    with pytest.raises(UsageError, match="engines was exported for onnx, not for TensorRT; export it --to tensorrt"):
        engine_settings(exported(runtime="onnx"))


@pytest.fixture(scope="module")
def plan(tensorrt_rtx: Tensorrt) -> bytes:
    settings = PlanSettings("fixed")
    return build(tensorrt_rtx, modulated(), part="synthesis", names=(), capability=86, settings=settings).data


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda plan: plan[: len(plan) // 2], r"blobSize failed"),
        (lambda plan: plan[:10], r"malformed engine: .*bufferSize >= minBufferSize"),
        (lambda plan: b"PK" + plan[2:], r"malformed engine: .*magicTag"),
        (lambda plan: b"", r"malformed engine"),
    ],
)
def test_the_real_runtime_refuses_a_damaged_plan(tensorrt_rtx: Tensorrt, plan: bytes, damage: Any, reason: str) -> None:
    messages = Messages()
    runtime = tensorrt_rtx.module.Runtime(tensorrt_rtx.logger(messages))
    damaged = damage(plan)
    invalid = invalidity(tensorrt_rtx, runtime, damaged)
    messages.errors.clear()
    assert runtime.deserialize_cuda_engine(damaged) is None
    error = unreadable(Path("synthesis.sm86.plan"), messages, invalid if invalid == "malformed engine" else None)
    with pytest.raises(IntegrityError, match=rf"synthesis.sm86.plan is no engine that can be loaded here \(.*{reason}"):
        raise error


def test_a_sound_plan_is_refused_for_want_of_a_gpu_alone(tensorrt_rtx: Tensorrt, plan: bytes) -> None:
    messages = Messages()
    runtime = tensorrt_rtx.module.Runtime(tensorrt_rtx.logger(messages))
    if isinstance(found(), Gpu):
        assert invalidity(tensorrt_rtx, runtime, plan) in (None, "unsupported cc")
        return
    assert invalidity(tensorrt_rtx, runtime, plan) == "invalid header"  # no bit set: it could not ask the driver
    assert "Error reading CUDA GPU properties" in messages.reason()
