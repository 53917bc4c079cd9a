"""From a module of constants to an ONNX graph with readable initializers."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from guide_fast.errors import GuideFastError
from guide_fast.export.onnx_layers import initializers

if TYPE_CHECKING:
    import onnx
    import onnx_ir

OPSET = 23  # the newest that ONNX Runtime, TensorRT's parser and the exporter's own converter all take
_LARGEST_FOLDED = 1 << 20  # elements


@dataclass(frozen=True)
class PartModule:
    """One part of a generator on its way to a graph: the module, an example of its inputs, names."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]  # in the order of forward's arguments; the first side is the batch
    outputs: Sequence[str]


def make_graph(part: PartModule, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The part as a checked ONNX model with a dynamic batch, metadata in `metadata_props`.

    Initializers have the names that their layers gave them, bit for bit the values, and nothing folds them. Raises
    GuideFastError when the exporter lost or changed one of them, or the model does not pass onnx.checker.
    """
    import onnx
    import onnx_ir

    with _quiet():
        try:
            program = torch.onnx.export(
                part.module.eval(),
                tuple(part.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_shapes=tuple({0: torch.export.Dim("batch", min=1)} for _ in part.inputs),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise GuideFastError(
                f"torch {torch.__version__} cannot export {part.name} to ONNX ({str(error).splitlines()[0]}); use a "
                "torch and an onnxscript that tests/export pass with"
            ) from error
        assert program is not None
        _fold(program.model)
        model: onnx.ModelProto = onnx_ir.to_proto(program.model)
    _rename(model, part.module)
    _strip(model)
    model.graph.name = part.name
    model.producer_name = "guide-fast"
    model.producer_version = ""
    onnx.helper.set_model_props(model, dict(metadata))
    _check_initializers(model, part)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GuideFastError(f"onnx.checker refuses the graph of {part.name}: {str(error).splitlines()[0]}") from None
    return model


def _fold(model: onnx_ir.Model) -> None:
    """Fold what depends on constants of the code, never on weights.

    Weights are graph inputs meanwhile: only their shapes are known, so that a sum with a weight stays a node whose
    weight can be exchanged. The exporter's own optimiser would fold noise with its strength, merge equal weights, drop
    the 1e-8 under a root.
    """
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    graph = model.graph
    held = [(value, value.const_value) for value in graph.initializers.values()]
    for value, _ in held:
        assert value.name is not None
        del graph.initializers[value.name]
        value.const_value = None
        graph.inputs.append(value)
    fold_constants(model, input_size_limit=_LARGEST_FOLDED, output_size_limit=_LARGEST_FOLDED)
    common.RemoveUnusedNodesPass()(model)
    for value, constant in held:
        graph.inputs.remove(value)
        value.const_value = constant
        graph.initializers.add(value)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


def _rename(model: onnx.ModelProto, module: nn.Module) -> None:
    names = {path: name for path, name, _ in initializers(module)}
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def _strip(model: onnx.ModelProto) -> None:
    """Take out where in whose files a node came from."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]  # the checker infers them again; they may have the batch of the example
    del graph.metadata_props[:]
    del model.metadata_props[:]


def _check_initializers(model: onnx.ModelProto, part: PartModule) -> None:
    from onnx import numpy_helper

    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for path, name, _ in initializers(part.module):
        wanted = part.module.get_buffer(path).numpy()
        if name not in found or numpy_helper.to_array(found[name]).tobytes() != wanted.tobytes():
            raise GuideFastError(
                f"the ONNX exporter {'changed' if name in found else 'lost'} {name} of {part.name}; "
                "use a torch and an onnxscript that tests/export pass with"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of operators that are not installed, of deprecations in itself: nothing a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
