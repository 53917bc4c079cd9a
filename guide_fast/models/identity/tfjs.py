"""TF.js graph models (json + bin) as frozen torch modules, without TF.js."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.frozen import FrozenNetwork

Array = np.ndarray[Any, Any]
Step = dict[str, Any]


class GraphNetwork(FrozenNetwork):
    """Runs the steps that `read_graph` made of a graph; differentiable to the input."""

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.input, self.output = config["input"], config["output"]
        self.steps: list[Step] = list(config["steps"])
        self.weights = nn.ParameterDict({name: nn.Parameter(value) for name, value in tensors.items()})
        last_use = {name: index for index, step in enumerate(self.steps) for name in step["inputs"]}
        self._finished = [[name for name, last in last_use.items() if last == i] for i in range(len(self.steps))]
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W], channels and range as the graph wants them -> the output node, [N, D] or NCHW."""
        values = {self.input: images}
        for step, finished in zip(self.steps, self._finished, strict=True):
            inputs = [values[name] for name in step["inputs"]]
            values[step["output"]] = _RUN[step["op"]](step, self.weights, *inputs)
            for name in finished:
                del values[name]
        return values[self.output]


def read_graph(files: Mapping[str, Path], model: str, output: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`<model>.json` with its weight shards (keys: file names) -> (float32 tensors, config) up to node `output`.

    Only nodes that `output` needs are read. Constants after a convolution or a product are folded into it; clamps in a
    row become one. Raises UsageError that names op and node when an op is unknown, IntegrityError when weights are cut.
    """
    document = json.loads(files[f"{model}.json"].read_text())
    constants: dict[str, Array] = {}
    for group in document["weightsManifest"]:
        shards = b"".join(files[Path(path).name].read_bytes() for path in group["paths"])
        constants |= _read_weights(group["weights"], shards, model)
    nodes = {node["name"]: node for node in document["modelTopology"]["node"]}
    if output not in nodes:
        raise UsageError(f"TF.js graph {model!r} has no node {output!r}")
    return _Compiler(model, nodes, constants).compile(output)


def _read_weights(manifest: list[dict[str, Any]], data: bytes, model: str) -> dict[str, Array]:
    weights, offset = {}, 0
    for entry in manifest:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"]).newbyteorder("<")
        count = math.prod(entry["shape"])
        if offset + count * stored.itemsize > len(data):
            raise IntegrityError(f"weights of TF.js graph {model!r} end within {entry['name']!r}; fetch the files anew")
        value: Array = np.frombuffer(data, dtype=stored, count=count, offset=offset).reshape(entry["shape"])
        offset += count * stored.itemsize
        if quantization and stored.kind == "u":
            value = value * quantization["scale"] + quantization["min"]
        weights[entry["name"]] = value if entry["dtype"] == "int32" else value.astype(np.float64)
    return weights


class _Compiler:
    """Walks a graph in dependency order; each node becomes a step, or melts into the step before it."""

    def __init__(self, model: str, nodes: Mapping[str, dict[str, Any]], constants: Mapping[str, Array]) -> None:
        self._model = model
        self._nodes = nodes
        self._constants = constants
        self._tensors: dict[str, Array] = {}
        self._steps: list[Step] = []
        self._step_of: dict[str, Step] = {}
        self._rank: dict[str, int] = {}
        self._alias: dict[str, str] = {}  # node -> the step output that holds its value
        self._uses: Counter[str] = Counter()
        self._input = ""

    def compile(self, output: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        order = self._order(output)
        self._uses = Counter(source for name in order for source in self._inputs(name))
        for name in order:
            if name not in self._constants:
                self._node(name)
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(value.astype(np.float32)))
            for name, value in self._tensors.items()
        }
        for step in self._steps:
            for bound in ("low", "high"):  # JSON has no infinity
                if bound in step and math.isinf(step[bound]):
                    step[bound] = None
        return tensors, {"input": self._input, "output": self._alias[output], "steps": self._steps}

    def _order(self, output: str) -> list[str]:
        order: dict[str, None] = {}
        stack = [(output, False)]
        while stack:
            name, ready = stack.pop()
            if ready:
                order[name] = None
            elif name not in order:
                stack.append((name, True))
                stack.extend((source, False) for source in self._inputs(name))
        return list(order)

    def _inputs(self, name: str) -> list[str]:
        return [source.split(":")[0] for source in self._nodes[name].get("input", []) if not source.startswith("^")]

    def _node(self, name: str) -> None:
        node = self._nodes[name]
        op, attributes = node["op"], node.get("attr", {})
        inputs = self._inputs(name)
        if op == "Placeholder":
            self._input, self._alias[name], self._rank[name] = name, name, 4
        elif op == "Identity":
            self._alias[name] = self._alias[inputs[0]]
        elif op in _CONVOLUTIONS:
            self._convolution(name, inputs, attributes, depthwise="Depthwise" in op)
            self._fused(name, inputs[2:], attributes)
        elif op in ("MatMul", "_FusedMatMul"):
            weight = self._constant(name, inputs[1])
            weight = weight.T if attributes.get("transpose_b", {}).get("b") else weight
            self._emit(name, "matmul", inputs[:1], rank=2, weight=weight)
            self._fused(name, inputs[2:], attributes)
        elif op in ("Add", "AddV2", "BiasAdd", "Sub", "Mul"):
            self._arithmetic(name, op, inputs)
        elif op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
            gamma, beta, mean, variance = (self._constant(name, source) for source in inputs[1:5])
            scale = gamma / np.sqrt(variance + attributes["epsilon"]["f"])
            self._affine(name, inputs[0], scale, beta - mean * scale)
        elif op in ("Relu", "Relu6", "Minimum", "Maximum"):
            source = next(item for item in inputs if item not in self._constants)
            bounds = {"Relu": (0.0, math.inf), "Relu6": (0.0, 6.0)}.get(op)
            if bounds is None:
                if source == inputs[0] and len(inputs) > 1 and inputs[1] not in self._constants:
                    raise self._unsupported(name, f"{op} of two computed values")
                value = float(self._constant(name, inputs[1] if source == inputs[0] else inputs[0]).item())
                bounds = (-math.inf, value) if op == "Minimum" else (value, math.inf)
            self._clamp(name, source, *bounds)
        elif op == "Prelu":
            self._prelu(name, inputs[0], inputs[1])
        elif op in ("MaxPool", "AvgPool"):
            kernel = _spatial(attributes["ksize"])
            stride, padding = _spatial(attributes["strides"]), self._padding(name, attributes)
            self._emit(name, op, inputs, kernel=kernel, stride=stride, padding=padding)
        elif op == "Mean":
            axes = sorted(int(axis) % 4 for axis in self._constant(name, inputs[1]).reshape(-1))
            if axes != [1, 2]:
                raise self._unsupported(name, f"Mean over axes {axes}")
            keep = bool(attributes.get("keep_dims", {}).get("b"))
            self._emit(name, "mean", inputs[:1], rank=4 if keep else 2, keep=keep)
        elif op == "Pad":
            amounts = self._constant(name, inputs[1]).reshape(-1).tolist()
            if any(amounts[:2] + amounts[6:]):
                raise self._unsupported(name, f"Pad by {amounts}")
            self._emit(name, "pad", inputs[:1], amounts=amounts[4:6] + amounts[2:4])  # left, right, top, bottom
        elif op == "Reshape":
            shape = self._constant(name, inputs[1]).reshape(-1).tolist()
            if len(shape) != 2:
                raise self._unsupported(name, f"Reshape to {shape}")
            self._emit(name, "reshape", inputs[:1], rank=2, shape=shape)
        else:
            raise self._unsupported(name, op)

    def _convolution(self, name: str, inputs: list[str], attributes: dict[str, Any], *, depthwise: bool) -> None:
        weight = self._constant(name, inputs[1])  # [kh, kw, I, O], depthwise [kh, kw, C, M]
        rows, columns, channels, outputs = weight.shape
        if depthwise:
            weight = weight.transpose(2, 3, 0, 1).reshape(channels * outputs, 1, rows, columns)
        else:
            weight = weight.transpose(3, 2, 0, 1)
        self._emit(
            name,
            "conv",
            inputs[:1],
            weight=weight,
            stride=_spatial(attributes["strides"]),
            dilation=_spatial(attributes["dilations"]) if "dilations" in attributes else [1, 1],
            padding=self._padding(name, attributes),
            groups=channels if depthwise else 1,
        )

    def _fused(self, name: str, extra: list[str], attributes: dict[str, Any]) -> None:
        """What a fused op does after its product; each part melts into the step or follows it."""
        for part in (_text(item) for item in attributes.get("fused_ops", {}).get("list", {}).get("s", [])):
            if part == "BiasAdd":
                self._affine(name, name, None, self._constant(name, extra.pop(0)), own=True)
            elif part in ("Relu", "Relu6"):
                self._clamp(name, name, 0.0, 6.0 if part == "Relu6" else math.inf, own=True)
            elif part == "Prelu":
                self._prelu(name, name, extra.pop(0))
            else:
                raise self._unsupported(name, f"fused {part}")

    def _arithmetic(self, name: str, op: str, inputs: list[str]) -> None:
        computed = [source for source in inputs if source not in self._constants]
        if len(computed) == 2:
            self._emit(name, {"Sub": "sub", "Mul": "mul"}.get(op, "add"), inputs)
            return
        constant = self._constant(name, next(source for source in inputs if source in self._constants))
        if op == "Mul":
            self._affine(name, computed[0], constant, None)
        elif op == "Sub" and inputs[0] == computed[0]:
            self._affine(name, computed[0], None, -constant)
        elif op == "Sub":
            self._affine(name, computed[0], np.array(-1.0), constant)
        else:
            self._affine(name, computed[0], None, constant)

    def _affine(self, name: str, source: str, scale: Array | None, shift: Array | None, *, own: bool = False) -> None:
        """y = scale * x + shift for each channel, folded into the step that makes x when nothing else reads x."""
        for value in (scale, shift):
            if value is not None and value.size != 1 and value.size != value.shape[-1]:
                raise self._unsupported(name, f"a constant of shape {list(value.shape)}")
        step = self._melting(source, ("conv", "matmul", "affine"), own=own)
        if step is None:
            step = self._emit(name, "affine", [source], rank=self._rank_of(source))
        self._alias[name] = step["output"]
        self._rank[name] = self._rank_of(source)
        if scale is not None:
            slot = "scale" if step["op"] == "affine" else "weight"
            self._set(step, slot, _scaled(self._get(step, slot), scale, step["op"]))
            if (bias := self._get(step, "bias")) is not None:
                self._set(step, "bias", bias * scale.reshape(-1))
        if shift is not None:
            bias = self._get(step, "bias")
            shift = np.broadcast_to(shift.reshape(-1), (_outputs(self._get(step, "weight"), step["op"], shift.size),))
            self._set(step, "bias", shift if bias is None else bias + shift)

    def _get(self, step: Step, slot: str) -> Array | None:
        return self._tensors.get(f"{step['output']}/{slot}")

    def _set(self, step: Step, slot: str, value: Array) -> None:
        step[slot] = f"{step['output']}/{slot}"
        self._tensors[step[slot]] = value

    def _clamp(self, name: str, source: str, low: float, high: float, *, own: bool = False) -> None:
        step = self._melting(source, ("clamp",), own=own)
        if step is None:
            self._emit(name, "clamp", [source], rank=self._rank_of(source), low=low, high=high)
            return
        self._alias[name] = step["output"]
        self._rank[name] = self._rank_of(source)
        step["low"], step["high"] = (min(max(bound, low), high) for bound in (step["low"], step["high"]))

    def _prelu(self, name: str, source: str, slope: str) -> None:
        self._emit(name, "prelu", [source], rank=self._rank_of(source), weight=self._constant(name, slope).reshape(-1))

    def _melting(self, source: str, ops: tuple[str, ...], *, own: bool) -> Step | None:
        step = self._step_of.get(self._alias[source])
        alone = own or self._uses[source] == 1
        return step if step is not None and step["op"] in ops and alone else None

    def _emit(self, name: str, op: str, inputs: list[str], *, rank: int = 4, **fields: Any) -> Step:
        sources = [self._alias[source] for source in inputs]
        output = name if name not in self._step_of else f"{name}/{op}"
        step: Step = {"op": op, "output": output, "inputs": sources}
        for key, value in fields.items():
            if isinstance(value, np.ndarray):
                self._tensors[f"{output}/{key}"] = value
                value = f"{output}/{key}"
            step[key] = value
        self._steps.append(step)
        self._step_of[output], self._alias[name], self._rank[name] = step, output, rank
        return step

    def _rank_of(self, name: str) -> int:
        return self._rank.get(name, 4)

    def _constant(self, name: str, source: str) -> Array:
        if source not in self._constants:
            raise self._unsupported(name, f"a computed value {source!r} where a constant belongs")
        return self._constants[source]

    def _padding(self, name: str, attributes: dict[str, Any]) -> str:
        padding = _text(attributes["padding"]["s"])
        if padding not in ("SAME", "VALID"):
            raise self._unsupported(name, f"padding {padding}")
        return padding

    def _unsupported(self, name: str, what: str) -> UsageError:
        op = self._nodes[name]["op"]
        return UsageError(f"TF.js graph {self._model!r}: op {op!r} of node {name!r} is not supported ({what})")


_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode("ascii")


def _spatial(attribute: dict[str, Any]) -> list[int]:
    """Rows and columns of an NHWC list attribute."""
    return [int(item) for item in attribute["list"]["i"][1:3]]


def _scaled(value: Array | None, scale: Array, op: str) -> Array:
    if value is None:
        return scale.reshape(-1)
    shape = {"conv": (-1, 1, 1, 1), "matmul": (1, -1)}.get(op, (-1,))  # the output channels of the value
    return value * scale.reshape(shape)


def _outputs(weight: Array | None, op: str, otherwise: int) -> int:
    if weight is None:
        return otherwise
    return weight.shape[0 if op == "conv" else 1]


def _channels(x: Tensor, value: Tensor) -> Tensor:
    return value.view(1, -1, 1, 1) if x.ndim == 4 else value


def _same(x: Tensor, step: Step, kernel: list[int], fill: float = 0.0) -> tuple[Tensor, list[int]]:
    """TensorFlow's SAME: x padded where the two ends differ, else the symmetric padding left to do."""
    if step["padding"] == "VALID":
        return x, [0, 0]
    ends = []
    for size, window, stride, dilation in zip(
        x.shape[2:], kernel, step["stride"], step.get("dilation", [1, 1]), strict=True
    ):
        total = max((math.ceil(size / stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        ends.append((total // 2, total - total // 2))
    if fill == 0 and all(before == after for before, after in ends):
        return x, [before for before, _ in ends]
    (top, bottom), (left, right) = ends
    return F.pad(x, (left, right, top, bottom), value=fill), [0, 0]


def _run_conv(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    weight = weights[step["weight"]]
    x, padding = _same(x, step, list(weight.shape[2:]))
    bias = weights[step["bias"]] if "bias" in step else None
    return F.conv2d(x, weight, bias, step["stride"], padding, step["dilation"], step["groups"])


def _run_matmul(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    y = x @ weights[step["weight"]]
    return y + weights[step["bias"]] if "bias" in step else y


def _run_affine(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    y = x * _channels(x, weights[step["scale"]]) if "scale" in step else x
    return y + _channels(x, weights[step["bias"]]) if "bias" in step else y


def _run_max_pool(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    x, _ = _same(x, step, step["kernel"], fill=-math.inf)
    return F.max_pool2d(x, step["kernel"], step["stride"])


def _run_average_pool(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    """Averages over the pixels inside the image only, as TensorFlow does."""
    inside, padding = _same(torch.ones_like(x[:1, :1]), step, step["kernel"])
    x, padding = _same(x, step, step["kernel"])
    total = F.avg_pool2d(x, step["kernel"], step["stride"], padding)
    return total / F.avg_pool2d(inside, step["kernel"], step["stride"], padding)


def _run_reshape(step: Step, weights: nn.ParameterDict, x: Tensor) -> Tensor:
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(step["shape"])  # the graph counts in NHWC order


_RUN: dict[str, Callable[..., Tensor]] = {
    "conv": _run_conv,
    "matmul": _run_matmul,
    "affine": _run_affine,
    "clamp": lambda step, weights, x: x.clamp(step["low"], step["high"]),
    "prelu": lambda step, weights, x: F.prelu(x, weights[step["weight"]]),
    "add": lambda step, weights, a, b: a + b,
    "sub": lambda step, weights, a, b: a - b,
    "mul": lambda step, weights, a, b: a * b,
    "MaxPool": _run_max_pool,
    "AvgPool": _run_average_pool,
    "mean": lambda step, weights, x: x.mean(dim=(2, 3), keepdim=step["keep"]),
    "pad": lambda step, weights, x: F.pad(x, step["amounts"]),
    "reshape": _run_reshape,
}
