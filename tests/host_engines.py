"""Engines of TensorRT's behaviour in ONNX Runtime: weights overwritten in place, slowly, under whoever renders."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from guide_fast.errors import GuideFastError
from guide_fast.export.folder import Change, ExportedGenerator, Part
from guide_fast.export.tensorrt_folder import refit_tensors
from guide_fast.export.tensorrt_network import with_inputs
from guide_fast.serve.session import Array
from guide_fast.serve.tensorrt_refit import every_value


class HostEngines:
    """Runs the ONNX files that the plans were built from, with all that a delta can touch as inputs."""

    def __init__(self, exported: ExportedGenerator, onnx_folder: Path, *, pause: float = 0.0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        tensors = refit_tensors(exported)
        self.weights = every_value(exported)  # as built
        self.pause, self.fail, self.refits, self.kept = pause, False, 0, 0
        self._alone = threading.Lock()
        self._sessions = {}
        for part in ExportedGenerator.load(onnx_folder).parts:
            model = with_inputs(onnx.load(str(part.path)), tensors.get(part.name, ()))
            self._sessions[part.name] = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def hold(self, change: Change) -> dict[tuple[str, str], Any]:
        return {key: value.copy() for key, value in change.items()}

    def refit(self, change: Change, every: Mapping[tuple[str, str], Array]) -> None:
        assert {*change} <= {*every}
        self.refits += 1
        for number, (key, value) in enumerate(change.items()):
            if self.fail and number:
                raise GuideFastError("a subset of weights may have been refitted")
            assert self._alone.acquire(blocking=False), "refitted while it renders"
            self.weights[key] = value
            time.sleep(self.pause)
            self._alone.release()

    def run(self, part: Part, known: Mapping[str, Any], held: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
        assert self._alone.acquire(blocking=False), "two batches at a time"
        try:
            session = self._sessions[part.name]
            weights = {tensor: value for (name, tensor), value in {**self.weights, **held}.items() if name == part.name}
            time.sleep(self.pause)
            given = {port.name: known[port.name].astype(port.dtype) for port in part.inputs}
            taken = {port.name for port in session.get_inputs()}
            names = [port.name for port in part.outputs]
            values = {name: value for name, value in (weights | given).items() if name in taken}
            return dict(zip(names, session.run(names, values), strict=True))
        finally:
            self._alone.release()

    def fetch(self, value: Any) -> Array:
        return value

    def keep_compiled(self) -> None:
        self.kept += 1
