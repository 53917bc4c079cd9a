"""What the operations can run on here: implementations, operations, measured choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import torch

from guide_fast import kernels
from guide_fast.kernels import _choice, _extension, _triton

IMPLS = ("reference", "triton", "cuda", "cpu")  # the other names of a table of backends are "auto"'s own


@dataclass(frozen=True)
class Implementation:
    """One way to run operations; `reason` says why it cannot run here."""

    name: str
    found: str
    reason: str | None = None

    @property
    def state(self) -> str:
        """As the other checks say it."""
        return "missing" if self.reason else "ok"


def report() -> tuple[list[str], dict[str, Any]]:
    """Lines to read, the same as plain values."""
    implementations = find_implementations()
    able = {implementation.name for implementation in implementations if implementation.reason is None}
    operations = {op: [name for name in IMPLS if name in has] for op, has in find_operations().items()}
    choices = _choice.table()
    lines = [f"{it.state:8}{it.name}: {it.found}{f'; {it.reason}' if it.reason else ''}" for it in implementations]
    width = max(map(len, operations))
    lines += ["", "Operations, what runs here:"]
    for op, has in operations.items():
        runs, rests = [name for name in has if name in able], [name for name in has if name not in able]
        elsewhere = f" (not here: {', '.join(rests)})" if rests else ""
        lines.append(f"  {op:{width}}  {', '.join(runs)}{elsewhere}")
    lines += ["", *_measured(choices)]
    values = {
        "implementations": [asdict(it) | {"state": it.state} for it in implementations],
        "operations": {op: {name: name in able for name in has} for op, has in operations.items()},
        "choices": choices,
    }
    return lines, values


def find_implementations() -> list[Implementation]:
    """Each implementation with why it cannot run, if so."""
    device = None if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"
    where = device or torch.cuda.get_device_name()
    return [
        Implementation("reference", "plain PyTorch, on every device"),
        _find_triton(device, where),
        _find_cuda(device, where),
        _find_cpu(),
    ]


def find_operations() -> dict[str, set[str]]:
    """Operation -> the implementations it has; the reference always."""
    found = {}
    for op in kernels.__all__:
        if isinstance(getattr(kernels, op), type):
            continue  # an error of theirs
        backends: Mapping[str, Any] = {}
        for module in (op, "_operator"):
            try:
                backends = import_module(f"guide_fast.kernels.{op}.{module}").BACKENDS
                break
            except (ModuleNotFoundError, AttributeError):
                continue
        if backends:
            found[op] = {"reference", *backends}
    return found


def _find_triton(no_device: str | None, where: str) -> Implementation:
    if reason := _triton.missing():
        return Implementation("triton", "absent", reason)
    found = f"Triton {import_module('triton').__version__}"
    if _triton.interpreted():
        return Implementation("triton", f"{found}, interpreted on the CPU (TRITON_INTERPRET=1): for tests, slow")
    return Implementation("triton", found if no_device else f"{found} on {where}", no_device)


def _find_cuda(no_device: str | None, where: str) -> Implementation:
    if reason := _extension.missing_cuda():
        return Implementation("cuda", "absent", reason)
    found = "compiled by nvcc into this build"
    return Implementation("cuda", found if no_device else f"{found}, on {where}", no_device)


def _find_cpu() -> Implementation:
    if reason := _extension.missing():
        return Implementation("cpu", "absent", reason)
    winograd = "by Winograd where it wins" if _extension.winograd() else "not by Winograd"
    found = f"compiled kernels on {_extension.instruction_set()}, 3x3 convolutions {winograd} (GUIDE_FAST_WINOGRAD)"
    return Implementation("cpu", found)


def _measured(choices: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not choices:
        return ["Measured choices: none yet; impl='auto' measures on a CUDA device, once for each shape."]
    lines = [f"Measured choices, in {_choice.default_path()}:"]
    for name, entry in sorted(choices.items()):
        times = ", ".join(
            f"{impl} {'failed' if ms is None else f'{ms:.3f} ms'}" for impl, ms in sorted(entry["ms"].items())
        )
        lines.append(f"  {name}: {entry['impl']} ({times})")
    return lines
