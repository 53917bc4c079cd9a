"""What goes into TensorRT engines when weights are exchanged: all of it but the device. Imports no torch.

`Refitter` is asked by name and keeps addresses, not arrays; it accepts values of the engine's own dtype alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export.cuda_driver import Gpu
from guide_fast.export.folder import Change, ExportedGenerator, Part
from guide_fast.export.rules import Rule
from guide_fast.export.tensorrt_flavour import FLAVOURS, Messages, Tensorrt
from guide_fast.serve.session import Array

SETTINGS = "tensorrt"  # of the manifest: flavour, version, weights, stripped, max_batch


def engine_settings(exported: ExportedGenerator) -> Mapping[str, Any]:
    """What engine.json says of its engines; raises UsageError when it describes none."""
    found = exported.manifest.get("runtime")
    if found not in FLAVOURS:
        raise UsageError(f"{exported.folder} was exported for {found}, not for TensorRT; export it --to tensorrt")
    settings: Mapping[str, Any] = exported.manifest[SETTINGS]
    return settings


def check_version(exported: ExportedGenerator, tensorrt: Tensorrt) -> None:
    """Raises UsageError when another version of TensorRT built the engines: it would not load them."""
    built = engine_settings(exported)["version"]
    if built != tensorrt.version:
        package = tensorrt.flavour.install.split("==")[0]
        raise UsageError(
            f"the engines in {exported.folder} were built by {tensorrt.flavour.title} {built}, here is "
            f"{tensorrt.version}; export the generator again, or {package}=={built}"
        )


def plans_for(exported: ExportedGenerator, gpu: Gpu) -> dict[str, Part]:
    """Part name -> the plan of it for this GPU, in the order in which an image passes them.

    Raises UsageError when the engines are for other architectures.
    """
    entries = exported.manifest["parts"]
    built = sorted({entry["compute_capability"] for entry in entries})
    if gpu.compute_capability not in built:
        raise UsageError(
            f"the engines in {exported.folder} are for compute capability {', '.join(map(str, built))}, {gpu.name} has "
            f"{gpu.compute_capability}; export the generator again with --compute-capability {gpu.compute_capability}"
        )
    return {
        part.name: part
        for part, entry in zip(exported.parts, entries, strict=True)
        if entry["compute_capability"] == gpu.compute_capability
    }


def every_value(exported: ExportedGenerator) -> Change:
    """All that a delta could change, at the generator's present version."""
    return {
        (entry["part"], entry["tensor"]): Rule.from_entry(entry).value(exported.tensors)
        for entry in exported.manifest["refit"]
    }


def of_part(change: Mapping[tuple[str, str], Any], part: str) -> dict[str, Any]:
    """The tensors of one part by their names alone."""
    return {tensor: value for (name, tensor), value in change.items() if name == part}


def fitting(name: str, value: Array, *, dtype: Any, count: int) -> Array:
    """`value` dense, as the engine takes it; raises IntegrityError when it is of another dtype or size.

    Nothing is converted: rounding a weight here would give another generator than the one that was exported.
    """
    if value.dtype != np.dtype(dtype) or value.size != count:
        raise IntegrityError(
            f"weight {name!r} is {value.size} numbers of {value.dtype.name}, the engine has {count} of "
            f"{np.dtype(dtype).name}; export the generator again"
        )
    return np.ascontiguousarray(value)


def refit(
    tensorrt: Tensorrt,
    refitter: Any,
    values: Mapping[str, Array],
    *,
    part: str,
    messages: Messages,
    other: Callable[[str], Array],
) -> tuple[str, ...]:
    """Overwrite the engine's weights by `values`; returns the names of all it was given.

    Weights that TensorRT has merged with those, and therefore wants as well, come from `other`, which may raise
    KeyError. Raises GuideFastError or IntegrityError with the engine's weights unknown from then on.
    """
    known = {*refitter.get_all_weights()}
    held: dict[str, Array] = {}  # until the refit is done

    def put(name: str, value: Array) -> None:
        if name not in known:
            raise IntegrityError(f"the engine of part {part!r} has no refittable weight {name!r}; export it again")
        prototype = refitter.get_weights_prototype(name)
        dtype = tensorrt.module.nptype(prototype.dtype)
        held[name] = fitting(name, value, dtype=dtype, count=prototype.size)
        if not refitter.set_named_weights(name, tensorrt.module.Weights(held[name])):
            raise GuideFastError(f"weight {name!r} of part {part!r} was refused: {messages.reason()}; export it again")

    for name in values:
        put(name, values[name])
    for name in refitter.get_missing_weights():
        if name not in held:
            try:
                put(name, other(name))
            except KeyError:
                raise GuideFastError(
                    f"weight {name!r} of part {part!r} is missing: TensorRT merged it with a weight that the delta "
                    "changes, and the export says nothing of it; export the generator again with --weights inputs"
                ) from None
    if held and not refitter.refit_cuda_engine():
        raise GuideFastError(
            f"the engine of part {part!r} was not refitted: {messages.reason()}; the session goes on as it was"
        )
    return tuple(held)


def unreadable(path: Path, messages: Messages, invalid: str | None = None) -> GuideFastError:
    """The error for a plan that TensorRT does not load; `invalid` is what its own check of the header found."""
    reason = f"{invalid}: {messages.reason()}" if invalid and messages.errors else invalid or messages.reason()
    return IntegrityError(f"{path} is no engine that can be loaded here ({reason}); export the generator again")


def invalidity(tensorrt: Tensorrt, runtime: Any, plan: bytes) -> str | None:
    """What TensorRT's check of a plan's header finds, in a few words; None where it finds nothing or has no check."""
    if not hasattr(runtime, "get_engine_validity"):
        return None
    validity, bits = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity != tensorrt.module.EngineValidity.INVALID:
        return None
    found = tensorrt.module.EngineInvalidityDiagnostics.__members__
    named = [name.lower().replace("_", " ") for name, bit in found.items() if int(bit) & int(bits)]
    return ", ".join(named) or "invalid header"
