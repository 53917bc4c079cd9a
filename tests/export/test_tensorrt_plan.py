"""Real plans are built without a GPU; where one is needed, or a node is at fault, the error says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from tensorrt_graphs import WEIGHTS, model, modulated
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export.cuda_driver import Gpu, found
from guide_fast.export.tensorrt_flavour import FLAVOURS, Tensorrt
from guide_fast.export.tensorrt_plan import PlanSettings, build, check, refittable

NO_GPU = "no CUDA driver is installed"
INPUTS = PlanSettings("inputs", max_batch=4)
# Where a plan of TensorRT for RTX 1.7 says for which architectures it is; NVIDIA documents no layout.
ARCHITECTURES = {86: 0x04, 89: 0x08, 120: 0x10}


def built(tensorrt: Tensorrt, graph: Any, *, names=WEIGHTS, capability: int = 89, settings=INPUTS) -> Any:
    return build(tensorrt, graph, part="synthesis", names=names, capability=capability, settings=settings)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_plan_is_built_for_the_architecture_that_was_named(
    tensorrt_rtx: Tensorrt, capability: int, dtype: Any
) -> None:
    plan = built(tensorrt_rtx, modulated(dtype), capability=capability)
    assert plan.exchangeable == WEIGHTS
    assert plan.proven_by == "network"
    assert plan.profile == {"ws": {"min": (1, 8), "opt": (4, 8), "max": (4, 8)}}
    assert plan.seconds > 0
    version = bytes(int(number) for number in tensorrt_rtx.version.split("."))
    assert plan.data[24:28] == version
    assert int.from_bytes(plan.data[32:36], "little") == ARCHITECTURES[capability]


def test_fixed_weights_are_in_the_plan_and_cannot_be_exchanged(tensorrt_rtx: Tensorrt) -> None:
    weight = np.random.default_rng(1).standard_normal((512, 512), np.float32)
    graph = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        [numpy_helper.from_array(weight, "w")],
        {"x": ("batch", 512)},
        {"y": ("batch", 512)},
    )
    fixed = built(tensorrt_rtx, graph, names=("w",), settings=PlanSettings("fixed"))
    assert fixed.exchangeable == ()
    assert len(fixed.data) > weight.nbytes > len(built(tensorrt_rtx, graph, names=("w",)).data)


def test_a_tensor_the_graph_lacks_fails_the_build(tensorrt_rtx: Tensorrt) -> None:
    for weights in ("inputs", "refit"):
        with pytest.raises(GuideFastError, match=r"tensor 'conv.gone' of part 'synthesis' is not among the"):
            built(tensorrt_rtx, modulated(), names=(*WEIGHTS, "conv.gone"), settings=PlanSettings(weights))


def test_a_build_error_names_the_onnx_node(tensorrt_rtx: Tensorrt) -> None:
    graph = model(
        [
            helper.make_node("Reshape", ["x", "three"], ["r"], name="into_three"),
            helper.make_node("MatMul", ["r", "w"], ["y"], name="product"),
        ],
        [
            numpy_helper.from_array(np.array([3, -1], np.int64), "three"),
            numpy_helper.from_array(np.eye(4, dtype="f"), "w"),
        ],
        {"x": ("batch", 4)},
        {"y": ("rows", 4)},
    )
    with pytest.raises(GuideFastError, match=r"cannot build ONNX node 'into_three' of part 'synthesis': .*no solution"):
        built(tensorrt_rtx, graph, names=("w",))


@pytest.mark.skipif(isinstance(found(), Gpu), reason="with a GPU the build succeeds")
def test_without_a_gpu_a_refittable_engine_is_refused_before_the_parser_runs(tensorrt_rtx: Tensorrt) -> None:
    with pytest.raises(UsageError, match=f"only where a GPU is, and {NO_GPU}; .*--weights inputs, which needs none"):
        check(tensorrt_rtx, PlanSettings("refit"), [86], gpu=NO_GPU)
    with pytest.raises(GuideFastError, match=r"cannot build part 'synthesis': .*CUDA_SUCCESS"):
        built(tensorrt_rtx, modulated(), settings=PlanSettings("refit"))  # so the refusal is right


@pytest.mark.parametrize(
    ("settings", "capabilities", "gpu", "message"),
    [
        (PlanSettings("loose"), [86], NO_GPU, "--weights loose is unknown; choose from refit, inputs, fixed"),
        (PlanSettings("inputs", max_batch=0), [86], NO_GPU, "--max-batch is 0; give 1 or more"),
        (PlanSettings("inputs", strip=True), [86], NO_GPU, "--strip leaves out .*, but --weights is inputs; drop one"),
        (PlanSettings("inputs"), [], NO_GPU, f"name the GPU to build for with --compute-capability .*: {NO_GPU}"),
        (PlanSettings("inputs"), [], Gpu("H100", 90), "builds no engine for compute capability 90; choose from"),
    ],
)
def test_what_cannot_be_built_is_refused(
    tensorrt_rtx: Tensorrt, settings: PlanSettings, capabilities: list[int], gpu: Gpu | str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(tensorrt_rtx, settings, capabilities, gpu=gpu)


def test_the_gpu_at_hand_is_built_for_when_none_is_named(tensorrt_rtx: Tensorrt) -> None:
    assert check(tensorrt_rtx, PlanSettings("refit"), [], gpu=Gpu("RTX 4090", 89)) == (89,)
    assert check(tensorrt_rtx, PlanSettings("inputs"), [120, 86], gpu=NO_GPU) == (86, 120)


def test_the_flavour_that_measures_needs_the_gpu(tensorrt_rtx: Tensorrt) -> None:
    plain = Tensorrt(FLAVOURS["tensorrt"], tensorrt_rtx.module)
    with pytest.raises(UsageError, match=f"TensorRT builds on the GPU it builds for, and {NO_GPU}"):
        check(plain, PlanSettings("inputs"), [], gpu=NO_GPU)
    assert check(plain, PlanSettings("inputs"), [], gpu=Gpu("H100", 90)) == (90,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("strip", [False, True])
def test_a_built_engine_lists_every_weight_as_refittable(tensorrt_rtx: Tensorrt, strip: bool) -> None:
    (capability,) = check(tensorrt_rtx, PlanSettings("refit"), [])
    plan = built(tensorrt_rtx, modulated(), capability=capability, settings=PlanSettings("refit", strip=strip))
    assert plan.proven_by == "engine"
    assert {*refittable(tensorrt_rtx, plan.data)} >= {*WEIGHTS}
