"""A session on TensorRT engines, in a process without torch: TensorRT, NumPy, PyCUDA or cuda-python.

How the engines hold what a delta changes (`engine.json`) decides what an exchange is. `refit`: a second copy of the
engines is overwritten while the first one renders; they take turns. `inputs`: the changed weights go to new buffers on
the device; one copy of the engines renders every version, each by its own addresses. `fixed`: there is none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from guide_fast.errors import UsageError
from guide_fast.export import cuda_driver
from guide_fast.export.folder import Change, ExportedGenerator, Part, StoredDelta
from guide_fast.export.tensorrt_flavour import load
from guide_fast.serve.cuda_memory import cuda
from guide_fast.serve.engine_copies import EngineCopies
from guide_fast.serve.onnx_session import EG3D, MAPPING, shape_of, w_mean
from guide_fast.serve.session import Array, Inputs, Rendered, Version
from guide_fast.serve.swapping import SwappingSession
from guide_fast.serve.tensorrt_refit import check_version, engine_settings, every_value, plans_for

Key = tuple[str, str]  # (part, tensor)


class Engines(Protocol):
    """What a session needs of `tensorrt_device.DeviceEngines`; `hold` by any thread, the others by one at a time."""

    def hold(self, change: Change) -> dict[Key, Any]:
        """Values where the engines can read them."""
        ...

    def refit(self, change: Change, every: Mapping[Key, Array]) -> None:
        """Overwrite weights."""
        ...

    def run(self, part: Part, known: Mapping[str, Any], held: Mapping[Key, Any]) -> dict[str, Any]:
        """What a part makes of the values called as its inputs are."""
        ...

    def fetch(self, value: Any) -> Array:
        """On the host."""
        ...

    def keep_compiled(self) -> None:
        """Save what was compiled on first use."""
        ...


@dataclass(frozen=True)
class TensorrtWeights:
    """One version; in `refit` the engines that were current when a batch began have its weights."""

    exported: ExportedGenerator
    held: Mapping[Key, Any] = field(default_factory=dict)  # weights that are inputs, on the device
    staged: Any = None  # a copy of the engines that has these weights, until it is exchanged
    change: Change = field(default_factory=dict)  # from the version before

    @property
    def version(self) -> Version:
        """Of the generator's weights."""
        return Version(self.exported.weights_sha256, self.exported.lineage)


class TensorrtSession(SwappingSession[TensorrtWeights, StoredDelta]):
    """Renders in batches of at most `batch` images, one batch at a time; sums may round by the batch's size."""

    def __init__(
        self,
        folder: Path | str,
        *,
        device: int = 0,
        batch: int | None = None,  # default: the largest that the engines were built for
        cache: Path | None = None,  # a folder for what TensorRT for RTX compiles on first use
        engines: Callable[[ExportedGenerator], Engines] | None = None,  # default: on the CUDA device
    ) -> None:
        """Raises UsageError for engines of another GPU or version, IntegrityError for damaged files."""
        exported = ExportedGenerator.load(folder)
        settings = engine_settings(exported)
        largest = int(settings["max_batch"])
        if batch is not None and not 1 <= batch <= largest:
            raise UsageError(f"batch is {batch}, the engines in {folder} take 1 to {largest}; export with --max-batch")
        self.runtime = exported.manifest["runtime"]
        self.batch = batch or largest
        self._kind: str = settings["weights"]
        start = engines or (lambda base: on_device(base, device, cache))
        weights = TensorrtWeights(exported)
        self._running = threading.Lock()
        self._copies: EngineCopies[Engines, Key] = EngineCopies(lambda: self._started(start, exported, settings))
        if self._kind == "inputs":
            with self._copies.leased(lambda: None) as (copy, _):
                weights = TensorrtWeights(exported, copy.hold(every_value(exported)))
        self._parts = tuple(plan_parts(exported).values())
        super().__init__(shape_of(exported), weights)

    def close(self) -> None:
        """As `Session.close`; keeps what was compiled on first use."""
        if self._weights is not None:
            with self._copies.leased(lambda: None) as (copy, _), self._running:
                copy.keep_compiled()
        super().close()
        self._copies.drop()

    def _read(self, delta: Path) -> StoredDelta:
        return StoredDelta.load(delta)

    def _changed(self, weights: TensorrtWeights, change: StoredDelta, *, undo: bool) -> TensorrtWeights:
        if self._kind == "fixed":
            raise UsageError(
                "these engines were built with --weights fixed, no delta can be applied to them; export the generator "
                "again with --weights refit or inputs"
            )
        exported, changed = weights.exported.after(change, undo=undo)
        if self._kind == "inputs":
            with self._copies.leased(lambda: None) as (copy, _):
                return TensorrtWeights(exported, {**weights.held, **copy.hold(changed)})
        every = every_value(exported)
        copy = self._copies.prepare(changed, lambda engines, values: engines.refit(dict(values), every))
        return TensorrtWeights(exported, staged=copy, change=changed)

    def _store(self, before: TensorrtWeights, after: TensorrtWeights) -> float:
        begun = time.perf_counter()

        def store() -> None:
            self._weights = TensorrtWeights(after.exported, after.held)

        if after.staged is None:
            store()
        else:
            self._copies.exchange(after.staged, after.change, store)
        return time.perf_counter() - begun

    def _rendered(self, inputs: Inputs) -> Rendered:
        parts = [inputs.part(i, i + self.batch) for i in range(0, len(inputs), self.batch)]
        with self._copies.leased(self._current) as (engines, weights):
            images = np.concatenate([self._images(engines, weights, part) for part in parts])
        return Rendered(images, weights.version)

    def _images(self, engines: Engines, weights: TensorrtWeights, inputs: Inputs) -> Array:
        """[N, 3, R, R]."""
        with self._running:
            known = self._latents(engines, weights, inputs)
            for part in self._parts:
                if part.name != MAPPING:
                    known |= engines.run(part, known, weights.held)
            return engines.fetch(known["image"]).astype(np.float32, copy=False)

    def _latents(self, engines: Engines, weights: TensorrtWeights, inputs: Inputs) -> dict[str, Any]:
        """What synthesis takes: ws [N, L, D], for 3D generators the camera c [N, C]."""
        exported, camera = weights.exported, weights.exported.manifest["family"] == EG3D
        ws = inputs.w
        if ws is None:
            mapping = next(part for part in self._parts if part.name == MAPPING)
            c = None if camera else inputs.c
            ws = engines.fetch(engines.run(mapping, mapping_inputs(exported, mapping, inputs, c), weights.held)["ws"])
        mean, amount = w_mean(exported), inputs.truncation[:, None, None]
        known: dict[str, Any] = {"ws": np.where(amount == 1, ws, mean + amount * (ws - mean)).astype(np.float32)}
        if camera:
            known["camera"] = usual_label(exported, "frontal", inputs.c, len(inputs))
        return known

    def _sizes(self) -> tuple[int, ...]:
        return tuple(sorted({1, self.batch}))

    def _started(
        self, start: Callable[[ExportedGenerator], Engines], exported: ExportedGenerator, settings: Mapping[str, Any]
    ) -> Engines:
        """A copy of the engines at the values of the folder."""
        copy = start(exported)
        if settings.get("stripped"):
            values = every_value(exported)
            copy.refit(values, values)
        return copy


def plan_parts(exported: ExportedGenerator) -> dict[str, Part]:
    """The parts, each once, though there may be a plan of each for several architectures."""
    return {part.name: part for part in exported.parts}


def mapping_inputs(exported: ExportedGenerator, mapping: Part, inputs: Inputs, c: Array | None) -> dict[str, Array]:
    """z [N, Z], psi [N] of 1 (truncation is done for w and z alike, outside), c [N, C] where the mapping takes one."""
    assert inputs.z is not None
    given: dict[str, Array] = {"z": inputs.z, "psi": np.ones(len(inputs), np.float32)}
    if any(port.name == "c" for port in mapping.inputs):
        given["c"] = usual_label(exported, "conditioning", c, len(inputs))
    return given


def usual_label(exported: ExportedGenerator, camera: str, c: Array | None, count: int) -> Array:
    """[N, C]: what was given, else the camera or class that the generator usually takes.

    Raises UsageError where nothing was given, and engine.json has no usual one.
    """
    if c is not None:
        return c
    manifest = exported.manifest
    usual = manifest.get("cameras", {}).get(camera) if manifest["family"] == EG3D else manifest.get("label")
    if usual is None:
        raise UsageError(f"{manifest['generator']} was exported without a usual {camera} label; give c for every image")
    return np.tile(np.asarray(usual, np.float32), (count, 1))


def on_device(exported: ExportedGenerator, device: int, cache: Path | None) -> Engines:
    """The engines of a folder on a CUDA device, by the flavour of TensorRT that built them."""
    from guide_fast.serve.tensorrt_device import DeviceEngines

    tensorrt = load(exported.manifest["runtime"])
    check_version(exported, tensorrt)
    gpu = cuda_driver.found(device)
    if isinstance(gpu, str):
        raise UsageError(f"TensorRT engines need an NVIDIA GPU, and {gpu}; serve the ONNX export on a CPU")
    return DeviceEngines(tensorrt, cuda(device), plans_for(exported, gpu), cache=cache)
