"""Graphs keep weights as they are: unfolded, unmerged, under their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from guide_fast.errors import GuideFastError
from guide_fast.export import onnx_graph
from guide_fast.export.onnx_graph import PartModule, make_graph
from guide_fast.export.onnx_layers import Layer, Weights

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnx.reference", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")


class Adding(Layer):
    """What an optimiser would fold: equal weights, a product of two weights, a sum with next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        weights = Weights({name: np.zeros(3, np.float32) for name in ("first", "second", "third")}, half=False)
        for name in weights.tensors:
            self.keep(f"own_{name}", weights, name)

    def forward(self, x: Tensor) -> Tensor:
        return (x * x + 1e-8).rsqrt() + self.own_first * self.own_second + self.own_third


def part() -> PartModule:
    return PartModule("adding", Adding(), {"x": torch.zeros(2, 3)}, ["y"])


def test_weights_are_neither_folded_nor_merged() -> None:
    model = make_graph(part(), {"key": "value"})
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"first", "second", "third"} <= names
    products = [set(node.input) for node in model.graph.node if node.op_type == "Mul"]
    assert {"first", "second"} in products
    (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": np.zeros((5, 3), np.float32)})
    assert np.allclose(y, 1e4)  # what is under the root
    assert {entry.key: entry.value for entry in model.metadata_props} == {"key": "value"}


def test_a_changed_initializer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(model: object, module: Adding) -> None:
        rename(model, module)
        module.own_first += 1

    rename = onnx_graph._rename
    monkeypatch.setattr(onnx_graph, "_rename", damage)
    with pytest.raises(GuideFastError, match="changed first of adding"):
        make_graph(part(), {})


def test_what_the_exporter_cannot_do_is_one_sentence() -> None:
    class Branching(Adding):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GuideFastError, match="cannot export branching to ONNX"):
        make_graph(PartModule("branching", Branching(), {"x": torch.zeros(2, 3)}, ["y"]), {})
