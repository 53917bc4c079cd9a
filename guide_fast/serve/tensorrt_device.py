"""The engines of an exported generator on a CUDA device: what no machine without one can run. Imports no torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast.errors import GuideFastError
from guide_fast.export.folder import Change, Part
from guide_fast.export.tensorrt_flavour import Messages, Tensorrt
from guide_fast.serve.cuda_memory import Buffer, Cuda
from guide_fast.serve.session import Array
from guide_fast.serve.tensorrt_refit import invalidity, of_part, refit, unreadable

Key = tuple[str, str]  # (part, tensor)


@dataclass(frozen=True)
class OnDevice:
    """A tensor that a part has made, good until its engines render the next batch."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: Any

    @property
    def array(self) -> Array:
        """Room for it on the host."""
        return np.empty(self.shape, self.dtype)


class DeviceEngines:
    """One copy of the engines, one batch at a time; but for `hold`, whoever calls has them to himself.

    Buffers of inputs and outputs are kept and grow with the largest batch, so that a batch allocates nothing.
    """

    def __init__(
        self,
        tensorrt: Tensorrt,
        cuda: Cuda,
        plans: Mapping[str, Part],
        *,
        cache: Path | None = None,  # where what is compiled on first use is kept, TensorRT for RTX
    ) -> None:
        """Raises IntegrityError for a plan that does not load: other architecture, other version, damaged."""
        self._tensorrt, self._cuda, self._messages = tensorrt, cuda, Messages()
        self._logger = tensorrt.logger(self._messages)
        self._room: dict[Key, Buffer] = {}
        self._engines: dict[str, Any] = {}
        self._contexts: dict[str, Any] = {}
        self._caches: dict[Path, Any] = {}
        with cuda.current():
            self._runtime = tensorrt.module.Runtime(self._logger)
            self._stream, self._uploads = cuda.stream(), cuda.stream()
            for name, part in plans.items():
                self._engines[name] = engine = self._loaded(part.path)
                self._contexts[name] = self._context(engine, cache / f"{part.sha256}.cache" if cache else None)

    def hold(self, change: Change) -> dict[Key, Buffer]:
        """Values on the device, for engines that take weights as inputs."""
        with self._cuda.current():
            return {key: self._cuda.holding(value, self._uploads) for key, value in change.items()}

    def refit(self, change: Change, every: Mapping[Key, Array]) -> None:
        """Overwrite weights; raises GuideFastError or IntegrityError with the engines good for nothing any more.

        `every` has all values at the version that `change` leads to.
        """
        with self._cuda.current():
            self._cuda.wait(self._stream)  # a refit under queued work is undefined
            for name, engine in self._engines.items():
                if values := of_part(change, name):
                    self._messages.errors.clear()
                    refit(
                        self._tensorrt,
                        self._tensorrt.module.Refitter(engine, self._logger),
                        values,
                        part=name,
                        messages=self._messages,
                        other=of_part(every, name).__getitem__,
                    )

    def run(
        self,
        part: Part,
        known: Mapping[str, Array | OnDevice],
        held: Mapping[Key, Buffer],
    ) -> dict[str, OnDevice]:
        """What a part makes of the values called as its inputs are; `held` are weights that are inputs."""
        context, engine = self._contexts[part.name], self._engines[part.name]
        with self._cuda.current():
            for name, buffer in of_part(held, part.name).items():
                context.set_tensor_address(name, buffer.address)
            for port in part.inputs:
                value = self._given(part.name, port.name, known[port.name], port.dtype)
                if not context.set_input_shape(port.name, value.shape):
                    raise self._failed(part, f"input {port.name!r} of shape {list(value.shape)}")
                context.set_tensor_address(port.name, value.buffer.address)
            made = {port.name: self._made(part.name, port.name, context, engine) for port in part.outputs}
            for name, output in made.items():
                context.set_tensor_address(name, output.buffer.address)
            if not context.execute_async_v3(self._stream):
                raise self._failed(part, "it did not run")
        return made

    def fetch(self, value: Array | OnDevice) -> Array:
        """On the host, when all before it is done."""
        if not isinstance(value, OnDevice):
            return value
        array = value.array
        with self._cuda.current():
            self._cuda.read(value.buffer, array, self._stream)
        return array

    def keep_compiled(self) -> None:
        """Write what was compiled on first use to the cache, where there is one."""
        with self._cuda.current():
            for path, cache in self._caches.items():
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(bytes(cache.serialize()))
                except OSError as error:  # the next start takes longer, nothing else
                    warnings.warn(f"cannot write {path} ({error.strerror}): compiled again next time", stacklevel=2)

    def _loaded(self, path: Path) -> Any:
        plan = path.read_bytes()
        if invalid := invalidity(self._tensorrt, self._runtime, plan):
            raise unreadable(path, self._messages, invalid)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise unreadable(path, self._messages)
        return engine

    def _context(self, engine: Any, kept: Path | None) -> Any:
        if kept is None or not self._tensorrt.flavour.runtime_cache:
            context = engine.create_execution_context()
        else:
            config = engine.create_runtime_config()
            self._caches[kept] = cache = config.create_runtime_cache()
            if kept.is_file():
                cache.deserialize(kept.read_bytes())  # one of another GPU or driver is ignored, and written anew
            config.set_runtime_cache(cache)
            context = engine.create_execution_context(config)
        if context is None:
            raise GuideFastError(f"an engine cannot be started ({self._messages.reason()}); free memory of the GPU")
        return context

    def _given(self, part: str, name: str, value: Array | OnDevice, dtype: str) -> OnDevice:
        if isinstance(value, OnDevice):
            return value
        dense = np.ascontiguousarray(value, dtype)
        given = OnDevice(self._space(part, name, dense.nbytes), dense.shape, dense.dtype)
        self._cuda.write(given.buffer, dense, self._stream)
        return given

    def _made(self, part: str, name: str, context: Any, engine: Any) -> OnDevice:
        shape = tuple(context.get_tensor_shape(name))
        dtype = np.dtype(self._tensorrt.module.nptype(engine.get_tensor_dtype(name)))
        return OnDevice(self._space(part, name, math.prod(shape) * dtype.itemsize), shape, dtype)

    def _space(self, part: str, name: str, size: int) -> Buffer:
        found = self._room.get((part, name))
        if found is None or found.size < size:
            self._cuda.wait(self._stream)  # what is queued may still use the smaller one
            self._room[part, name] = found = self._cuda.empty(size)
        return found

    def _failed(self, part: Part, what: str) -> GuideFastError:
        said = self._messages.reason()
        return GuideFastError(f"the engine {part.path} failed, {what}: {said}; export the generator again")
