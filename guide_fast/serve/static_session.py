"""A session whose weights, inputs, images keep their addresses, so that a batch is one replay of a CUDA graph."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.deltas import apply_delta, rollback
from guide_fast.errors import UsageError
from guide_fast.models.generator import Generator
from guide_fast.serve.session import Array, Inputs, Rendered, Version
from guide_fast.serve.swapping import SwappingSession
from guide_fast.serve.torch_session import shape_of, sharing

Call = Callable[[], None]  # reads and writes fixed addresses
WARM_UP = 3  # calls that compile, choose, allocate before the recording


@dataclass(frozen=True)
class StaticWeights:
    """A version on the host, where it is hashed, with what has to be copied over the one before it."""

    generator: Generator
    version: Version
    staged: dict[str, Tensor] = field(default_factory=dict)  # on the device; empty once it renders


@dataclass(frozen=True)
class Buffers:
    """What a batch of one size reads and writes."""

    z: Tensor  # [N, Z]
    w: Tensor  # [N, L, D]
    c: Tensor  # [N, C]
    truncation: Tensor  # [N]
    image: Tensor  # [N, 3, R, R]


class StaticSession(SwappingSession[StaticWeights, Delta]):
    """Batches of 1, 2, 4, ... up to `batch` images, each recorded once; others are padded to the next.

    A swap is one copy of the changed weights over the static ones, on the stream of the batches: it waits for those
    that were launched before it, those launched afterwards wait for it. Sums may round by the batch's size.
    """

    runtime = "torch-graph"

    def __init__(
        self,
        generator: Generator,
        *,
        device: str = "cuda",
        batch: int = 8,
        record: Callable[[Call], Call] | None = None,  # default: as a CUDA graph
    ) -> None:
        """Raises UsageError without a CUDA device, unless `record` needs none."""
        self._device = torch.device(device)
        if record is None and not (self._device.type == "cuda" and torch.cuda.is_available()):
            raise UsageError(
                f"a CUDA graph needs a CUDA device, device = {device!r} is none that torch finds; take cpu"
            )
        self.batch = batch
        self._record = record or cuda_graph
        self._launching = threading.Lock()
        self._live = cast(Generator, copy.deepcopy(cast(nn.Module, generator)).to(self._device))
        self._parameters = dict(self._live.named_parameters())
        self._label = _usual_label(generator, self._device)
        self._recorded: dict[int, tuple[Buffers, Call, Call]] = {}
        version = Version(weights_sha256(generator), tuple(generator.lineage))
        super().__init__(shape_of(generator), StaticWeights(generator, version))

    def close(self) -> None:
        """As `Session.close`."""
        super().close()
        with self._launching:
            self._recorded.clear()

    def _read(self, delta: Path) -> Delta:
        return Delta.load(delta)

    def _changed(self, weights: StaticWeights, change: Delta, *, undo: bool) -> StaticWeights:
        generator = sharing(weights.generator, change.tensors)
        (rollback if undo else apply_delta)(generator, change)  # checks both hashes
        version = Version(change.base_sha256 if undo else change.result_sha256, tuple(generator.lineage))
        host = dict(generator.named_parameters())
        staged = {name: host[name].to(self._device, copy=True) for name in change.tensors}
        self._wait()
        return StaticWeights(generator, version, staged)

    def _store(self, before: StaticWeights, after: StaticWeights) -> float:
        """One copy; returns the seconds that batches had to wait for it."""
        old: list[Tensor] = [self._parameters[name] for name in after.staged]
        new = list(after.staged.values())
        with self._launching, torch.no_grad():
            self._wait()  # what was launched before is not part of the exchange
            begun = time.perf_counter()
            torch._foreach_copy_(old, new)
            self._weights = after
            self._wait()
            seconds = time.perf_counter() - begun
        after.staged.clear()
        return seconds

    def _rendered(self, inputs: Inputs) -> Rendered:
        made = [
            self._launched(inputs.part(i, min(i + self.batch, len(inputs)))) for i in range(0, len(inputs), self.batch)
        ]
        if len({part.version for part in made}) > 1:  # exchanged between two parts: all of them anew, by the later one
            return self._rendered(inputs)
        return Rendered(np.concatenate([part.images for part in made]), made[0].version)

    def _launched(self, inputs: Inputs) -> Rendered:
        count = len(inputs)
        size = next(size for size in self._sizes() if size >= count)
        with self._launching:
            version = self._current().version
            if size not in self._recorded:
                self._recorded[size] = self._recording(size)
            buffers, map_z, synthesize = self._recorded[size]
            if inputs.w is None:
                _fill(buffers.z, inputs.z)
                if inputs.c is not None and self._live.cameras is None:
                    _fill(buffers.c, inputs.c)
                else:
                    buffers.c.copy_(self._label.mapping)
                map_z()
            else:
                _fill(buffers.w, inputs.w)
            if self._live.cameras is not None:
                buffers.c.copy_(self._label.synthesis)
                if inputs.c is not None:
                    _fill(buffers.c, inputs.c)
            _fill(buffers.truncation, inputs.truncation)
            synthesize()
            cuda = self._device.type == "cuda"
            images = torch.empty(buffers.image[:count].shape, pin_memory=cuda)
            images.copy_(buffers.image[:count], non_blocking=cuda)
            done = torch.cuda.Event() if cuda else None
            if done is not None:
                done.record()
        if done is not None:
            done.synchronize()
        return Rendered(images.numpy(), version)

    def _recording(self, size: int) -> tuple[Buffers, Call, Call]:
        """Buffers of a size with what maps z, what renders w."""
        shape, live = self.shape, self._live

        def new(*sizes: int) -> Tensor:
            return torch.zeros(size, *sizes, device=self._device)

        buffers = Buffers(
            z=new(shape.z_dim) + 1,
            w=new(shape.num_ws, shape.w_dim),
            c=new(max(shape.c_dim, 1)),
            truncation=new() + 1,
            image=new(3, shape.resolution, shape.resolution),
        )
        labelled, camera = bool(shape.c_dim), live.cameras is not None

        def map_z() -> None:
            buffers.w.copy_(live.mapping(buffers.z, buffers.c if labelled else None))

        def synthesize() -> None:
            amount, mean = buffers.truncation[:, None, None], live.w_mean
            w = torch.where(amount == 1, buffers.w, mean + amount * (buffers.w - mean))
            buffers.image.copy_(live.synthesis(w, buffers.c if camera else None).image)

        with torch.no_grad():
            if labelled:
                buffers.c.copy_(self._label.mapping)
            return buffers, self._record(map_z), self._record(synthesize)

    def _sizes(self) -> tuple[int, ...]:
        sizes = [1]
        while sizes[-1] < self.batch:
            sizes.append(min(2 * sizes[-1], self.batch))
        return tuple(sizes)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


@dataclass(frozen=True)
class _Label:
    """What stands for c where none is given."""

    mapping: Tensor
    synthesis: Tensor


def _usual_label(generator: Generator, device: torch.device) -> _Label:
    cameras = generator.cameras
    if cameras is not None:
        return _Label(cameras.conditioning.to(device), cameras.frontal.to(device))
    label = getattr(generator, "label", None)
    none = torch.zeros(1, device=device)
    return _Label(none if label is None else label.to(device), none)


def _fill(buffer: Tensor, values: Array | None) -> None:
    assert values is not None
    buffer[: len(values)].copy_(torch.from_numpy(values), non_blocking=True)


def cuda_graph(call: Call) -> Call:
    """`call`, recorded; raises whatever a call raises that cannot be recorded (it waits for the device)."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # other threads may copy the next weights meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        call()
    return graph.replay
