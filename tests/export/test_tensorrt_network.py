"""What a delta touches stays exchangeable in the network; what TensorRT refuses names the ONNX node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tensorrt_graphs import WEIGHTS, model, modulated
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import GuideFastError
from guide_fast.export.tensorrt_flavour import Messages, Tensorrt
from guide_fast.export.tensorrt_network import (
    inputs,
    mark_refittable,
    node_named_in,
    parsed,
    profile,
    require,
    with_inputs,
)


def network(tensorrt: Tensorrt, graph: Any) -> Any:
    logger = tensorrt.logger(Messages())
    builder = tensorrt.module.Builder(logger)
    made = parsed(tensorrt, builder, logger, graph.SerializeToString(), part="synthesis")
    return builder, made  # the builder owns the network


def test_every_weight_can_be_marked_refittable(tensorrt_rtx: Tensorrt) -> None:
    _, made = network(tensorrt_rtx, modulated())
    mark_refittable(made, WEIGHTS, part="synthesis")
    assert all(made.are_weights_marked_refittable(name) for name in WEIGHTS)
    assert not made.are_weights_marked_refittable("constant")


def test_a_weight_the_network_has_not_is_named(tensorrt_rtx: Tensorrt) -> None:
    _, made = network(tensorrt_rtx, modulated())
    with pytest.raises(GuideFastError, match=r"tensor 'gone' of part 'synthesis' with 1 more is not among the weights"):
        mark_refittable(made, ["conv.weight", "gone", "lost"], part="synthesis")


def test_weights_become_inputs(tensorrt_rtx: Tensorrt) -> None:
    graph = modulated()
    made = with_inputs(graph, WEIGHTS)
    onnx.checker.check_model(made)
    assert {tensor.name for tensor in graph.graph.initializer} >= {*WEIGHTS}  # the argument stays as it was
    assert not {tensor.name for tensor in made.graph.initializer} & {*WEIGHTS}
    _, built = network(tensorrt_rtx, made)
    assert inputs(built)["conv.weight"] == (12, 16, 3, 3)
    assert {*inputs(built)} == {"ws", *WEIGHTS}


@pytest.mark.parametrize("opset", [18, 20, 22])
def test_networks_are_strongly_typed(tensorrt_rtx: Tensorrt, opset: int) -> None:
    _, made = network(tensorrt_rtx, modulated(np.float16, opset=opset))
    assert made.get_flag(tensorrt_rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert made.get_output(0).dtype == tensorrt_rtx.module.float16


def test_a_refused_node_is_named(tensorrt_rtx: Tensorrt) -> None:
    unknown = helper.make_node("Fold", ["x"], ["y"], name="layers.3/fold", domain="own")
    graph = model([unknown], [], {"x": ("batch", 4)}, {"y": ("batch", 4)}, domains=("own",))
    with pytest.raises(GuideFastError, match=r"does not take ONNX node 'layers.3/fold' \(Fold\) of part 'synthesis'"):
        network(tensorrt_rtx, graph)


def test_mixed_types_name_the_node(tensorrt_rtx: Tensorrt) -> None:
    half = onnx.numpy_helper.from_array(np.zeros((1, 4), np.float16), "half")
    add = helper.make_node("Add", ["x", "half"], ["y"], name="add_half")
    graph = model([add], [half], {"x": ("batch", 4)}, {"y": ("batch", 4)})
    with pytest.raises(GuideFastError, match=r"ONNX node 'add_half' \(Add\).* types Float and Half"):
        network(tensorrt_rtx, graph)


def test_no_onnx_file_is_said_to_be_none(tensorrt_rtx: Tensorrt) -> None:
    logger = tensorrt_rtx.logger(Messages())
    builder = tensorrt_rtx.module.Builder(logger)
    with pytest.raises(GuideFastError, match="cannot read the ONNX file of part 'mapping'"):
        parsed(tensorrt_rtx, builder, logger, b"no model", part="mapping")


def test_the_profile_is_of_inputs_with_a_batch() -> None:
    shapes = profile({"z": (-1, 512), "weight": (3, 3)}, max_batch=4)
    assert shapes == {"z": {"min": (1, 512), "opt": (4, 512), "max": (4, 512)}}


def test_requirements_can_be_met() -> None:
    require(["a", "b"], ["b", "c", "a"], part="mapping", what="weights")
    with pytest.raises(GuideFastError, match="tensor 'd' of part 'mapping' is not among the weights, so a delta"):
        require(["a", "d"], ["a"], part="mapping", what="weights")


def test_the_longest_name_in_an_error_is_its_node(tensorrt_rtx: Tensorrt) -> None:
    _, made = network(tensorrt_rtx, modulated())
    assert node_named_in(made, "IConstantLayer conv.sum_of_squares: odd") == "conv.sum_of_squares"
    assert node_named_in(made, "IShuffleLayer up: no solution") == "up"
    assert node_named_in(made, "upside down, conv.bias2, a/up") is None
