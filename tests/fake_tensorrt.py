"""TensorRT's runtime as its documentation describes it, computing in ONNX Runtime on memory with addresses.

Only what needs a device is replaced; data types, weights, loggers are the real module's. What TensorRT leaves undefined
(a run without an address, a refit under queued work) fails here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from guide_fast.errors import GuideFastError
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.tensorrt_folder import refit_tensors
from guide_fast.export.tensorrt_network import with_inputs
from guide_fast.serve.cuda_memory import Buffer, Cuda
from guide_fast.serve.session import Array


class HostCuda(Cuda):
    """A device whose memory is the host's; freed memory cannot be read."""

    def __init__(self, limit: int = 2**30) -> None:
        self.memory: dict[int, bytearray] = {}
        self.limit, self.inside, self.next = limit, 0, 4096
        self.streams: set[int] = set()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.inside += 1
        yield
        self.inside -= 1

    def stream(self) -> int:
        assert self.inside
        self.streams.add(len(self.streams) + 1)
        return len(self.streams)

    def empty(self, size: int) -> Buffer:
        assert self.inside and size
        if size > self.limit:
            raise GuideFastError("the CUDA device has no room")
        self.next += size + 256
        self.memory[self.next] = bytearray(b"\xff" * size)  # NaN, until it is written
        return Buffer(self.next, size)

    def write(self, buffer: Buffer, values: Array, stream: int) -> None:
        assert self.inside and stream in self.streams and values.flags.c_contiguous and values.nbytes <= buffer.size
        self.memory[buffer.address][: values.nbytes] = values.tobytes()

    def read(self, buffer: Buffer, values: Array, stream: int) -> None:
        assert self.inside and stream in self.streams
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(self.memory[buffer.address], np.uint8, values.nbytes)

    def wait(self, stream: int) -> None:
        assert self.inside and stream in self.streams


class Engine:
    """One part, of which `names` can be exchanged."""

    def __init__(self, cuda: HostCuda, trt: Any, model: Any, names: tuple[str, ...], kind: str, largest: int) -> None:
        self.cuda, self.trt, self.kind, self.largest = cuda, trt, kind, largest
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
        self.weights = {name: value.copy() for name, value in tensors.items()}
        self.prototypes = {name: (value.shape, value.dtype) for name, value in tensors.items()}
        self.session = onnxruntime.InferenceSession(with_inputs(model, names).SerializeToString())
        self.inputs = {value.name: value for value in model.graph.input}
        self.outputs = {value.name: value for value in model.graph.output}

    def create_execution_context(self, config: Any = None) -> Context:
        return Context(self)

    def create_runtime_config(self) -> Any:
        return RuntimeConfig()

    def get_tensor_dtype(self, name: str) -> Any:
        kind = self.outputs[name].type.tensor_type.elem_type
        return {1: self.trt.float32, 10: self.trt.float16}[kind]


class Context:
    """Runs an engine; knows shapes, addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        sides = [side.dim_value for side in self.engine.inputs[name].type.tensor_type.shape.dim]
        self.shapes[name] = tuple(shape)
        return len(sides) == len(shape) and shape[0] <= self.engine.largest and [*shape[1:]] == sides[1:]

    def set_tensor_address(self, name: str, address: int) -> bool:
        known = {*self.engine.inputs, *self.engine.outputs, *self.engine.prototypes}
        assert name in known, name
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert {*self.shapes} == {*self.engine.inputs}, "shapes of all inputs come first"
        batch = next(iter(self.shapes.values()))[0]
        sides = self.engine.outputs[name].type.tensor_type.shape.dim
        return (batch, *(side.dim_value for side in sides[1:]))

    def execute_async_v3(self, stream: int) -> bool:
        engine, memory = self.engine, self.engine.cuda.memory
        assert engine.cuda.inside and stream in engine.cuda.streams
        given: dict[str, Any] = {}
        for port in engine.session.get_inputs():
            name = port.name
            if name in engine.prototypes and engine.kind != "inputs":
                given[name] = engine.weights[name]
                continue
            shape, dtype = engine.prototypes.get(name) or (self.shapes[name], _DTYPES[port.type])
            if name not in self.addresses:
                return False
            given[name] = np.frombuffer(memory[self.addresses[name]], dtype, math.prod(shape)).reshape(shape)
        names = [*engine.outputs]
        for name, value in zip(names, engine.session.run(names, given), strict=True):
            room = memory[self.addresses[name]]
            assert len(room) >= value.nbytes
            room[: value.nbytes] = value.tobytes()
        return True


class RuntimeConfig:
    """Keeps a cache."""

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        assert isinstance(cache, RuntimeCache)


class RuntimeCache:
    """Says what was read into it."""

    def __init__(self) -> None:
        self.content = b"compiled"

    def deserialize(self, content: bytes) -> bool:
        self.content = content + b" again"
        return True

    def serialize(self) -> bytes:
        return self.content


class Refitter:
    """Overwrites an engine's weights."""

    def __init__(self, engine: Engine, logger: Any) -> None:
        assert engine.kind == "refit"
        self.engine, self.given = engine, dict[str, Any]()

    def get_all_weights(self) -> list[str]:
        return [*self.engine.prototypes]

    def get_weights_prototype(self, name: str) -> Any:
        return self.engine.trt.Weights(self.engine.weights[name])

    def set_named_weights(self, name: str, weights: Any) -> bool:
        self.given[name] = weights
        return True

    def get_missing_weights(self) -> list[str]:
        return []

    def refit_cuda_engine(self) -> bool:
        assert self.engine.cuda.inside
        for name, weights in self.given.items():
            shape, _ = self.engine.prototypes[name]
            self.engine.weights[name] = np.array(weights.numpy()).reshape(shape)
        return True


class Module:
    """The real module with what needs a device replaced."""

    def __init__(self, real: Any, engines: Mapping[bytes, Any]) -> None:
        self._real, self._engines = real, engines
        self.Refitter = Refitter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def Runtime(self, logger: Any) -> Any:
        return Runtime(self, logger)


class Runtime:
    """Loads the plans that it was made for."""

    engine_header_size = 64

    def __init__(self, module: Module, logger: Any) -> None:
        self._module, self._logger = module, logger

    def get_engine_validity(self, header: bytes) -> tuple[Any, int]:
        if header[:4] == b"vtrt":
            return self._module.EngineValidity.VALID, 0
        return self._module.EngineValidity.INVALID, int(self._module.EngineInvalidityDiagnostics.MALFORMED_ENGINE)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if plan not in self._module._engines:
            self._logger.log(self._module.ILogger.ERROR, "Serialization assertion failed")
            return None
        return self._module._engines[plan]()


def runtime_of(exported: ExportedGenerator, source: ExportedGenerator, real: Tensorrt, cuda: HostCuda) -> Tensorrt:
    """TensorRT that loads the plans of `exported`, which were built from `source`."""
    settings, tensors = exported.manifest["tensorrt"], refit_tensors(exported)
    graphs = {part.name: part.path for part in source.parts}
    module = Module(real.module, engines := {})
    for part in exported.parts:

        def engine(name: str = part.name) -> Engine:
            model = onnx.load(str(graphs[name]))
            return Engine(cuda, real.module, model, tensors.get(name, ()), settings["weights"], settings["max_batch"])

        engines[part.path.read_bytes()] = engine
    return Tensorrt(real.flavour, module)


_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
