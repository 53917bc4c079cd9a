"""How far ONNX Runtime's outputs lie from PyTorch's, as a fraction of the range of PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from torch import Tensor

from guide_fast.export.rules import Array

IMAGE = "image"
DEPTH = "depth"
GIVEN = ("z", "c", "psi", "camera")  # what no part makes


def compare(files: Mapping[str, Path], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Part -> largest difference over all its outputs, on the inputs that PyTorch made for it.

    "image" is that of the whole chain, each part on what the one before it made: there the rounding of the mapping
    network counts as often as the synthesis network multiplies it. "depth" stands alone: that of a ray which meets next
    to nothing is the quotient of two rounding errors. NaN or another shape counts as infinite.
    """
    known = {name: value.numpy() for name, value in expected.items()}
    made = {name: value for name, value in known.items() if name in GIVEN}
    differences: dict[str, float] = {}
    for part, path in files.items():
        session = open_session(path)
        for name, value in run(session, known).items():
            entry = DEPTH if name == DEPTH else part
            differences[entry] = max(differences.get(entry, 0.0), of_range(value, known[name]))
        made |= run(session, made)
    return differences | {IMAGE: of_range(made[IMAGE], known[IMAGE])}


def open_session(path: Path) -> Any:
    """The graph in ONNX Runtime on the CPU, quiet about what it optimises."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: Any, values: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name; `values` may hold more than the graph's inputs."""
    inputs = {port.name: values[port.name] for port in session.get_inputs()}
    return dict(zip((port.name for port in session.get_outputs()), session.run(None, inputs), strict=True))


def of_range(value: Array, wanted: Array) -> float:
    """Largest absolute difference over the range of `wanted`."""
    if value.shape != wanted.shape or not np.isfinite(value).all():
        return float("inf")
    span = float(wanted.max() - wanted.min()) or 1.0
    return float(np.abs(value.astype(np.float64) - wanted).max()) / span
