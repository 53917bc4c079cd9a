"""Memory of a CUDA device for NumPy arrays, by PyCUDA or, where that is missing, by cuda-python.

No torch. Both bindings use the device's primary context, which TensorRT shares; every thread that touches the device
does so inside `current()`.
"""

from __future__ import annotations

import contextlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.serve.session import Array

INSTALL = "pip install pycuda (needs the CUDA toolkit) or pip install cuda-bindings"


class Buffer:
    """Bytes on the device, freed with the last reference to them."""

    def __init__(self, address: int, size: int, owner: Any = None) -> None:
        self.address, self.size, self._owner = address, size, owner


class Cuda(ABC):
    """One device."""

    @abstractmethod
    def current(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the calling thread works on this device."""

    @abstractmethod
    def stream(self) -> int:
        """A new stream's handle; streams live as long as this object."""

    @abstractmethod
    def empty(self, size: int) -> Buffer:
        """Room for `size` bytes; raises GuideFastError when the device is full."""

    @abstractmethod
    def write(self, buffer: Buffer, values: Array, stream: int) -> None:
        """Copy dense `values` to the device, in the order of `stream`; they may go once this returns."""

    @abstractmethod
    def read(self, buffer: Buffer, values: Array, stream: int) -> None:
        """Copy into `values`, [any shape] dense, when all before it on `stream` is done; waits for it."""

    @abstractmethod
    def wait(self, stream: int) -> None:
        """Until all that was put on `stream` is done."""

    def holding(self, values: Array, stream: int) -> Buffer:
        """A new buffer with `values`."""
        dense = np.ascontiguousarray(values)
        buffer = self.empty(max(dense.nbytes, 1))  # no address stands for nothing
        self.write(buffer, dense, stream)
        return buffer


class PyCuda(Cuda):
    """By PyCUDA; raises ImportError where it is missing."""

    def __init__(self, index: int) -> None:
        self._driver = import_module("pycuda.driver")
        try:
            self._driver.init()
            self._context = self._driver.Device(index).retain_primary_context()
        except self._driver.Error as error:
            raise _no_device(index, str(error)) from None
        self._streams: dict[int, Any] = {}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """As `Cuda.current`."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> int:
        """As `Cuda.stream`."""
        made = self._driver.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def empty(self, size: int) -> Buffer:
        """As `Cuda.empty`."""
        try:
            owner = self._driver.mem_alloc(size)
        except self._driver.MemoryError:
            raise _full(size) from None
        return Buffer(int(owner), size, owner)

    def write(self, buffer: Buffer, values: Array, stream: int) -> None:
        """As `Cuda.write`."""
        self._driver.memcpy_htod_async(buffer.address, values, self._streams[stream])
        self.wait(stream)

    def read(self, buffer: Buffer, values: Array, stream: int) -> None:
        """As `Cuda.read`."""
        self._driver.memcpy_dtoh_async(values, buffer.address, self._streams[stream])
        self.wait(stream)

    def wait(self, stream: int) -> None:
        """As `Cuda.wait`."""
        self._streams[stream].synchronize()


class CudaPython(Cuda):
    """By cuda-python; raises ImportError where it is missing."""

    def __init__(self, index: int) -> None:
        self._runtime, self._index = import_module("cuda.bindings.runtime"), index
        (status,) = self._runtime.cudaSetDevice(index)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise _no_device(index, self._said(status))

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """As `Cuda.current`."""
        self._done(self._runtime.cudaSetDevice(self._index))  # of this thread
        yield

    def stream(self) -> int:
        """As `Cuda.stream`."""
        made = self._done(self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking))
        weakref.finalize(self, self._runtime.cudaStreamDestroy, made)
        return int(made)

    def empty(self, size: int) -> Buffer:
        """As `Cuda.empty`."""
        status, address = self._runtime.cudaMalloc(size)
        if status == self._runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise _full(size)
        self._done((status,))
        buffer = Buffer(int(address), size)
        weakref.finalize(buffer, self._runtime.cudaFree, int(address))
        return buffer

    def write(self, buffer: Buffer, values: Array, stream: int) -> None:
        """As `Cuda.write`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._done(self._runtime.cudaMemcpyAsync(buffer.address, values.ctypes.data, values.nbytes, kind, stream))
        self.wait(stream)

    def read(self, buffer: Buffer, values: Array, stream: int) -> None:
        """As `Cuda.read`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._done(self._runtime.cudaMemcpyAsync(values.ctypes.data, buffer.address, values.nbytes, kind, stream))
        self.wait(stream)

    def wait(self, stream: int) -> None:
        """As `Cuda.wait`."""
        self._done(self._runtime.cudaStreamSynchronize(stream))

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """What a call returned beside its status; raises GuideFastError where it failed."""
        status, *rest = answer
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise GuideFastError(f"CUDA device {self._index} failed ({self._said(status)}); start the session again")
        return rest[0] if rest else None

    def _said(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)


def cuda(index: int = 0, *, bindings: Sequence[Callable[[int], Cuda]] = (PyCuda, CudaPython)) -> Cuda:
    """The device, by the first of `bindings` that is installed.

    Raises UsageError when none of them is, or when the device cannot be used.
    """
    for binding in bindings:
        try:
            return binding(index)
        except ImportError:
            continue
    raise UsageError(f"no CUDA binding for Python is installed; {INSTALL}")


def _no_device(index: int, reason: str) -> UsageError:
    return UsageError(f"CUDA device {index} cannot be used ({reason}); serve the ONNX export on a CPU, or use a GPU")


def _full(size: int) -> GuideFastError:
    return GuideFastError(
        f"the CUDA device has no room for {size / 2**20:.0f} MiB more; free some, or serve with a smaller --max-batch"
    )
