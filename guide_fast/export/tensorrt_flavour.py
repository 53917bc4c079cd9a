"""Which TensorRT: one Python interface under two names, with all in which they differ.

`tensorrt_rtx` (TensorRT for RTX) compiles ahead of time, for GPUs that need not be there, what each GPU finishes on
first use; `tensorrt` measures kernels on the GPU at hand and builds for that one. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from guide_fast.errors import UsageError

WEIGHTS = ("refit", "inputs", "fixed")  # how an engine holds what a delta changes


@dataclass(frozen=True)
class Flavour:
    """One of the two, without loading it."""

    name: str  # of the module and in engine.json
    title: str
    install: str
    ahead: bool  # builds for compute capabilities that are named, GPU or not
    timing_cache: bool  # the other's has no effect, but asks for a GPU
    runtime_cache: bool  # keeps what was compiled on first use


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("tensorrt_rtx", "TensorRT for RTX", "pip install tensorrt-rtx-cu13==1.7.1.116", True, False, True),
        Flavour("tensorrt", "TensorRT", "pip install tensorrt", False, True, False),
    )
}


@dataclass
class Messages:
    """What TensorRT said: it returns nothing where it fails, so the log is the only place of a reason."""

    errors: list[str] = field(default_factory=list)

    def reason(self) -> str:
        """The first error in one line; the later ones follow from it."""
        ours = [error for error in self.errors if "catchCudaError" not in error]  # no GPU: said after each error
        return " ".join((ours or self.errors or ["it gave no reason"])[0].split()).rstrip(".")


@dataclass(frozen=True)
class Tensorrt:
    """A flavour that has been loaded."""

    flavour: Flavour
    module: Any

    @property
    def version(self) -> str:
        """Of the package; plans of another version do not load."""
        return str(self.module.__version__)

    @property
    def compute_capabilities(self) -> tuple[int, ...]:
        """Those that can be named to the builder, 86 for 8.6; none where it builds for the GPU at hand."""
        if not self.flavour.ahead:
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))

    def checked(self, capabilities: Sequence[int]) -> tuple[int, ...]:
        """`capabilities` in order, each once; raises UsageError for one that no engine can be built for."""
        offered = self.compute_capabilities
        for capability in capabilities:
            if capability not in offered:
                raise UsageError(
                    f"{self.flavour.title} {self.version} builds no engine for compute capability {capability}; "
                    + (f"choose from {', '.join(map(str, offered))}" if offered else "leave --compute-capability out")
                )
        return tuple(sorted({*capabilities}))

    def logger(self, messages: Messages) -> Any:
        """A logger that keeps errors in `messages`."""
        trt = self.module

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    messages.errors.append(message)

        return Logger()


def load(name: str) -> Tensorrt:
    """Raises UsageError for an unknown flavour, or one that is not installed (with the command that installs it)."""
    if name not in FLAVOURS:
        raise UsageError(f"there is no flavour {name!r} of TensorRT; choose {' or '.join(FLAVOURS)}")
    flavour = FLAVOURS[name]
    try:
        return Tensorrt(flavour, import_module(flavour.name))
    except ImportError as error:
        missing = getattr(error, "name", None) == flavour.name
        why = "is not installed" if missing else f"does not load ({error})"
        raise UsageError(f"{flavour.title} {why}; install it: {flavour.install}") from None
