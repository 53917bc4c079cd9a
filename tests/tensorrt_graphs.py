"""A small ONNX graph of the form that synthesis has: modulate, constant convolution, demodulate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import absent

from guide_fast.errors import UsageError
from guide_fast.export.tensorrt_flavour import Tensorrt, load

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'guide-fast[tensorrt]'")
helper, from_array = onnx.helper, onnx.numpy_helper.from_array

WEIGHTS = ("affine.weight", "affine.bias", "conv.weight", "conv.sum_of_squares", "conv.bias", "up.weight")


@pytest.fixture(scope="session")
def tensorrt_rtx() -> Tensorrt:
    """The real package; the tests that need it skip where it is not installed, but not in CI."""
    try:
        return load("tensorrt_rtx")
    except UsageError as error:
        absent(str(error))


def modulated(dtype: Any = np.float32, *, opset: int = 22) -> Any:
    """ws [N, 8] -> image [N, 6, 16, 16]."""
    rng = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> Any:
        return from_array(rng.standard_normal(shape).astype(dtype), name)

    def integers(name: str, *values: int) -> Any:
        return from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("Gemm", ["ws", "affine.weight", "affine.bias"], ["s"], name="affine", transB=1),
        helper.make_node("Reshape", ["s", "to_16"], ["s4"], name="style"),
        helper.make_node("Mul", ["constant", "s4"], ["modulated"], name="modulate"),
        helper.make_node("Conv", ["modulated", "conv.weight"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["s", "s"], ["s2"], name="square"),
        helper.make_node("Gemm", ["s2", "conv.sum_of_squares"], ["d"], name="demodulation", transB=1),
        helper.make_node("Add", ["d", "epsilon"], ["d1"], name="plus_epsilon"),
        helper.make_node("Sqrt", ["d1"], ["d2"], name="root"),
        helper.make_node("Reciprocal", ["d2"], ["d3"], name="one_by"),
        helper.make_node("Reshape", ["d3", "to_12"], ["d4"], name="to_image"),
        helper.make_node("Mul", ["y", "d4"], ["demodulated"], name="demodulate"),
        helper.make_node("Unsqueeze", ["conv.bias", "axes"], ["bias"], name="bias_axes"),
        helper.make_node("Add", ["demodulated", "bias"], ["biased"], name="add_bias"),
        helper.make_node("LeakyRelu", ["biased"], ["activated"], name="activate", alpha=0.2),
        helper.make_node(
            "ConvTranspose",
            ["activated", "up.weight"],
            ["image"],
            name="up",
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            output_padding=[1, 1],
        ),
    ]
    tensors = [
        tensor("affine.weight", 16, 8),
        tensor("affine.bias", 16),
        tensor("constant", 1, 16, 8, 8),
        tensor("conv.weight", 12, 16, 3, 3),
        from_array((rng.standard_normal((12, 16)) ** 2).astype(dtype), "conv.sum_of_squares"),
        tensor("conv.bias", 12),
        tensor("up.weight", 12, 6, 3, 3),
        from_array(np.array([1e-3], dtype), "epsilon"),
        integers("to_16", -1, 16, 1, 1),
        integers("to_12", -1, 12, 1, 1),
        integers("axes", 1, 2),
    ]
    return model(nodes, tensors, {"ws": ("batch", 8)}, {"image": ("batch", 6, 16, 16)}, dtype=dtype, opset=opset)


def model(
    nodes: list[Any],
    tensors: list[Any],
    inputs: dict[str, tuple[Any, ...]],
    outputs: dict[str, tuple[Any, ...]],
    *,
    dtype: Any = np.float32,
    opset: int = 22,
    domains: tuple[str, ...] = (),
) -> Any:
    """An ONNX model with all inputs and outputs of one dtype."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        tensors,
    )
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10)
