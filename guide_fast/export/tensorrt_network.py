"""From an ONNX graph to a network that TensorRT builds, whose weights can be exchanged later.

An engine holds what a delta changes in one of three ways (`tensorrt_flavour.WEIGHTS`). `refit`: as weights marked
refittable, one by one, which `Refitter` overwrites. `inputs`: as inputs beside the images' own, so that an exchange is
another address; nothing is built for the weights, and no GPU is needed to build it. `fixed`: as constants, for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guide_fast.errors import GuideFastError
from guide_fast.export.tensorrt_flavour import Messages, Tensorrt


def parsed(
    tensorrt: Tensorrt,
    builder: Any,
    logger: Any,
    model: bytes,
    *,
    part: str,
) -> Any:
    """The network of a serialised ONNX model, strongly typed; raises GuideFastError that names the node at fault."""
    trt = tensorrt.module
    kinds = trt.NetworkDefinitionCreationFlag
    strongly = kinds.__members__.get("STRONGLY_TYPED")  # where it is gone, every network is
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise GuideFastError(_refusal(tensorrt, part, [parser.get_error(i) for i in range(parser.num_errors)]))
    return network


def with_inputs(model: Any, names: Iterable[str]) -> Any:
    """A copy of an ONNX model that takes the initializers called `names` as inputs."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    wanted = {*names}
    kept = [tensor for tensor in made.graph.initializer if tensor.name not in wanted]
    for tensor in made.graph.initializer:
        if tensor.name in wanted:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            made.graph.input.append(value)
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def mark_refittable(network: Any, names: Sequence[str], *, part: str) -> None:
    """Mark the weights called `names`; raises GuideFastError naming those that TensorRT has not as weights."""
    missing = [name for name in names if not network.mark_weights_refittable(name)]
    require(names, set(names) - {*missing}, part=part, what="weights that TensorRT can refit")


def require(names: Iterable[str], found: Iterable[str], *, part: str, what: str) -> None:
    """Raises GuideFastError unless `found` has every one of `names`."""
    missing = sorted({*names} - {*found})
    if missing:
        rest = f" with {len(missing) - 1} more" if len(missing) > 1 else ""
        raise GuideFastError(
            f"tensor {missing[0]!r} of part {part!r}{rest} is not among the {what}, so a delta could not be applied; "
            f"export the generator again with this version, or choose --weights fixed"
        )


def inputs(network: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what the network takes, -1 for the batch."""
    tensors = (network.get_input(i) for i in range(network.num_inputs))
    return {tensor.name: tuple(tensor.shape) for tensor in tensors}


def profile(shapes: Mapping[str, tuple[int, ...]], *, max_batch: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Input name -> its shapes at the least, the usual, the largest batch; for the inputs that have one.

    One profile, because an engine that can be refitted keeps only one. The usual batch is the largest: a service
    fills its batches when speed matters.
    """
    sizes = {"min": 1, "opt": max_batch, "max": max_batch}
    return {
        name: {key: tuple(size if edge == -1 else edge for edge in shape) for key, size in sizes.items()}
        for name, shape in shapes.items()
        if -1 in shape
    }


def node_named_in(network: Any, reason: str) -> str | None:
    """The ONNX node that an error of the builder is about, where it names one."""
    # layers are called as their nodes; a constant's layer is called as its tensor, which is as good a hint
    names = {network.get_layer(i).name for i in range(network.num_layers)} - {""}
    found = [name for name in names if re.search(rf"(?<![\w./]){re.escape(name)}(?![\w/]|\.\w)", reason)]
    return max(found, key=len, default=None)


def _refusal(tensorrt: Tensorrt, part: str, errors: Sequence[Any]) -> str:
    title = f"{tensorrt.flavour.title} {tensorrt.version}"
    if not errors:
        return f"{title} refuses part {part!r} without a reason; export the generator to ONNX again"
    error = errors[0]
    said = Messages([error.desc()]).reason()
    if not error.node_name() and not error.node_operator():
        return f"{title} cannot read the ONNX file of part {part!r} ({said}); export the generator to ONNX again"
    return (
        f"{title} does not take ONNX node {error.node_name()!r} ({error.node_operator()}) of part {part!r}: {said}; "
        f"try a newer version of it: {tensorrt.flavour.install.split('==')[0]} --upgrade"
    )
