"""Graphs of TF.js give in torch what they give in TF.js."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.identity.tfjs import GraphNetwork, read_graph

CHANNELS = 4


class GraphWriter:
    """Builds a graph model file by file, one node at a time; the input is NHWC with `CHANNELS` channels."""

    def __init__(self, size: int = 9) -> None:
        self.random = np.random.default_rng(0)
        shape = {"dim": [{"size": str(side)} for side in (-1, size, size, CHANNELS)]}
        self.nodes: list[dict[str, Any]] = [
            {"name": "x", "op": "Placeholder", "attr": {"dtype": {"type": "DT_FLOAT"}, "shape": {"shape": shape}}}
        ]
        self.weights: list[tuple[dict[str, Any], bytes]] = []

    def constant(self, name: str, value: Any, *, dtype: str = "float32", stored: str | None = None) -> str:
        value = np.asarray(value)
        kind = {"float32": "DT_FLOAT", "int32": "DT_INT32"}[dtype]
        self.nodes.append({"name": name, "op": "Const", "attr": {"dtype": {"type": kind}, "value": {"tensor": {}}}})
        entry: dict[str, Any] = {"name": name, "dtype": dtype, "shape": list(value.shape)}
        if stored in ("uint8", "uint16"):
            span = float(value.max() - value.min()) or 1.0
            scale = span / np.iinfo(stored).max
            entry["quantization"] = {"dtype": stored, "scale": scale, "min": float(value.min())}
            value = np.round((value - value.min()) / scale)
        elif stored:
            entry["quantization"] = {"dtype": stored, "original_dtype": "float32"}
        self.weights.append((entry, value.astype(stored or dtype).tobytes()))
        return name

    def random_constant(self, name: str, *shape: int, stored: str | None = None) -> str:
        return self.constant(name, self.random.normal(size=shape), stored=stored)

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attributes})
        return name

    def write(self, folder: Path) -> dict[str, Path]:
        manifest = [{"paths": ["graph.bin"], "weights": [entry for entry, _ in self.weights]}]
        topology = {"node": self.nodes, "versions": {"producer": 0, "minConsumer": 0}}
        document = {"format": "graph-model", "modelTopology": topology, "weightsManifest": manifest}
        (folder / "graph.json").write_text(json.dumps(document))
        (folder / "graph.bin").write_bytes(b"".join(data for _, data in self.weights))
        return {name: folder / name for name in ("graph.json", "graph.bin")}


def text(value: str) -> dict[str, Any]:
    return {"s": base64.b64encode(value.encode()).decode()}


def window(padding: str, stride: int = 1, dilation: int = 1, **more: Any) -> dict[str, Any]:
    sides = {"strides": stride, "dilations": dilation, **more}
    lists = {key: {"list": {"i": ["1", str(side), str(side), "1"]}} for key, side in sides.items()}
    return {**lists, "padding": text(padding), "data_format": text("NHWC"), "T": {"type": "DT_FLOAT"}}


def fused(*parts: str, count: int) -> dict[str, Any]:
    return {
        "fused_ops": {"list": {"s": [text(part)["s"] for part in parts]}},
        "num_args": {"i": str(count)},
        "epsilon": {"f": 0.0},
    }


def convolution(graph: GraphWriter, **options: Any) -> str:
    return graph.node("y", "Conv2D", "x", graph.random_constant("w", 3, 3, CHANNELS, 6), **window(**options))


def depthwise(graph: GraphWriter, **options: Any) -> str:
    weight = graph.random_constant("w", 3, 3, CHANNELS, 2)
    return graph.node("y", "DepthwiseConv2dNative", "x", weight, **window(**options))


def fused_convolution(graph: GraphWriter) -> str:
    weight, bias, slope = (graph.random_constant(*args) for args in (("w", 3, 3, CHANNELS, 6), ("b", 6), ("s", 6)))
    attributes = window("SAME", stride=2) | fused("BiasAdd", "Prelu", count=2)
    return graph.node("y", "_FusedConv2D", "x", weight, bias, slope, **attributes)


def fused_depthwise(graph: GraphWriter) -> str:
    weight, bias = graph.random_constant("w", 3, 3, CHANNELS, 1), graph.random_constant("b", CHANNELS)
    attributes = window("SAME") | fused("BiasAdd", "Relu6", count=1)
    return graph.node("y", "FusedDepthwiseConv2dNative", "x", weight, bias, **attributes)


def folded_chain(graph: GraphWriter) -> str:
    """Constants of every shape after a convolution, clamps in a row, then arithmetic on what came out."""
    convolution(graph, padding="SAME")
    graph.node("times", "Mul", "y", graph.random_constant("scale", 6))
    graph.node("plus", "AddV2", graph.random_constant("shift", 1, 1, 1, 6), "times")
    graph.node("minus", "Sub", "plus", graph.constant("half", 0.5))
    graph.node("turned", "Sub", graph.constant("one", 1.0), "minus")
    graph.node("same", "Identity", "turned")
    graph.node("floor", "Relu", "same")
    graph.node("ceiling", "Minimum", graph.constant("four", 4.0), "floor")
    graph.node("band", "Maximum", "ceiling", graph.constant("quarter", 0.25))
    graph.node("scaled", "Mul", "band", graph.constant("two", [2.0]))
    return graph.node("out", "Add", "scaled", "ceiling")


def shared_convolution(graph: GraphWriter) -> str:
    """A convolution that two nodes read: what follows one of them must not leak into the other."""
    convolution(graph, padding="VALID")
    graph.node("left", "Mul", "y", graph.random_constant("scale", 6))
    graph.node("right", "BiasAdd", "y", graph.random_constant("shift", 6))
    graph.node("product", "Mul", "left", "right")
    return graph.node("out", "Sub", "product", "y")


def batch_norm(graph: GraphWriter) -> str:
    names = [graph.random_constant(name, CHANNELS) for name in ("gamma", "beta", "mean")]
    names.append(graph.constant("variance", graph.random.uniform(0.5, 2, CHANNELS)))
    attributes = {"epsilon": {"f": 0.001}, "is_training": {"b": False}, "data_format": text("NHWC")}
    return graph.node("y", "FusedBatchNormV3", "x", *names, **attributes)


def prelu_by_hand(graph: GraphWriter) -> str:
    graph.node("up", "Maximum", graph.constant("zero", 0.0), "x")
    graph.node("down", "Minimum", graph.constant("nought", 0.0), "x")
    graph.node("sloped", "Mul", graph.random_constant("slope", CHANNELS), "down")
    graph.node("y", "AddV2", "up", "sloped")
    return graph.node("z", "Prelu", "y", graph.random_constant("other", CHANNELS))


def pool(graph: GraphWriter, op: str, padding: str) -> str:
    return graph.node("y", op, "x", **window(padding, stride=2, ksize=3))


def head(graph: GraphWriter) -> str:
    """Padding, flattening in NHWC order, a dense layer with its own activation, a dense layer with folded constants."""
    graph.node("pad", "Pad", "x", graph.constant("by", [[0, 0], [1, 2], [0, 1], [0, 0]], dtype="int32"))
    count = 12 * 10 * CHANNELS
    graph.node("flat", "Reshape", "pad", graph.constant("shape", [-1, count], dtype="int32"))
    dense = {"transpose_a": {"b": False}, "transpose_b": {"b": False}, "T": {"type": "DT_FLOAT"}}
    weight, bias = graph.random_constant("w", count, 5), graph.random_constant("b", 5)
    graph.node("dense", "_FusedMatMul", "flat", weight, bias, **dense, **fused("BiasAdd", "Relu", count=1))
    graph.node("last", "MatMul", "dense", graph.random_constant("v", 5, 3), **dense)
    graph.node("times", "Mul", "last", graph.random_constant("scale", 3))
    return graph.node("plus", "AddV2", "times", graph.random_constant("shift", 3))


def mean(graph: GraphWriter, keep: bool) -> str:
    axes = graph.constant("axes", [1, 2], dtype="int32")
    graph.node("y", "Mean", "x", axes, keep_dims={"b": keep}, T={"type": "DT_FLOAT"}, Tidx={"type": "DT_INT32"})
    return graph.node("z", "Mul", "y", graph.random_constant("scale", CHANNELS))


GRAPHS: dict[str, tuple[int, Callable[[GraphWriter], str]]] = {
    "convolution valid": (9, lambda graph: convolution(graph, padding="VALID")),
    "convolution same odd": (9, lambda graph: convolution(graph, padding="SAME", stride=2)),
    "convolution same even": (10, lambda graph: convolution(graph, padding="SAME", stride=2)),
    "convolution dilated": (11, lambda graph: convolution(graph, padding="SAME", dilation=2)),
    "depthwise multiplier 2": (10, lambda graph: depthwise(graph, padding="SAME", stride=2)),
    "fused convolution": (10, fused_convolution),
    "fused depthwise": (9, fused_depthwise),
    "folded chain": (9, folded_chain),
    "shared convolution": (9, shared_convolution),
    "batch norm": (9, batch_norm),
    "prelu by hand": (9, prelu_by_hand),
    "max pool same": (10, lambda graph: pool(graph, "MaxPool", "SAME")),
    "max pool valid": (9, lambda graph: pool(graph, "MaxPool", "VALID")),
    "average pool same": (10, lambda graph: pool(graph, "AvgPool", "SAME")),
    "head": (9, head),
    "mean": (9, lambda graph: mean(graph, False)),
    "mean kept": (9, lambda graph: mean(graph, True)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_equals_tfjs(name: str, tmp_path: Path, run_tfjs: Callable[[Path, str, Tensor], Tensor]) -> None:
    size, build = GRAPHS[name]
    graph = GraphWriter(size)
    output = build(graph)
    files = graph.write(tmp_path)
    images = torch.randn(2, size, size, CHANNELS, generator=torch.Generator().manual_seed(1))
    expected = run_tfjs(files["graph.json"], output, images)
    found = GraphNetwork(*read_graph(files, "graph", output))(images.permute(0, 3, 1, 2))
    found = found.permute(0, 2, 3, 1) if found.ndim == 4 else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stored", ["float16", "uint8", "uint16"])
def test_quantised_weights_are_restored(stored: str, tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.node("y", "Mul", "x", graph.random_constant("scale", CHANNELS, stored=stored))
    (value,) = read_graph(graph.write(tmp_path), "graph", "y")[0].values()
    expected = torch.from_numpy(np.random.default_rng(0).normal(size=CHANNELS)).float()
    torch.testing.assert_close(value, expected, rtol=0, atol={"float16": 2e-3, "uint8": 1e-2, "uint16": 1e-4}[stored])


def test_constants_after_a_convolution_are_folded_into_it(tmp_path: Path) -> None:
    graph = GraphWriter()
    output = folded_chain(graph)
    _, config = read_graph(graph.write(tmp_path), "graph", output)
    assert [step["op"] for step in config["steps"]] == ["conv", "clamp", "clamp", "affine", "add"]


def test_config_is_strict_json(tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.node("y", "Relu", "x")
    _, config = read_graph(graph.write(tmp_path), "graph", "y")
    assert json.loads(json.dumps(config, allow_nan=False)) == config


def test_gradient_of_a_graph_is_exact(tmp_path: Path, assert_gradient: Callable[..., None]) -> None:
    graph = GraphWriter()
    output = folded_chain(graph)
    network = GraphNetwork(*read_graph(graph.write(tmp_path), "graph", output)).double()
    assert_gradient(lambda x: network(x).square().sum(), torch.randn(1, CHANNELS, 9, 9) * 0.3)


def test_unknown_op_is_named_with_its_node(tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.node("odd/one", "Einsum", "x")
    with pytest.raises(UsageError, match=r"'Einsum' of node 'odd/one'"):
        read_graph(graph.write(tmp_path), "graph", "odd/one")


def test_unknown_op_that_the_output_does_not_need_is_ignored(tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.node("odd", "Einsum", "x")
    graph.node("y", "Relu", "x")
    read_graph(graph.write(tmp_path), "graph", "y")


def test_unknown_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nowhere'"):
        read_graph(GraphWriter().write(tmp_path), "graph", "nowhere")


def test_weights_that_were_cut_are_refused(tmp_path: Path) -> None:
    graph = GraphWriter()
    graph.node("y", "Mul", "x", graph.random_constant("scale", CHANNELS))
    files = graph.write(tmp_path)
    files["graph.bin"].write_bytes(files["graph.bin"].read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="'scale'"):
        read_graph(files, "graph", "y")
