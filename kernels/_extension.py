"""Loads the compiled library: `torch.ops.guide_fast.native_*`."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from guide_fast.kernels._constant import constant
from guide_fast.kernels._errors import KernelError

_FOLDER = Path(__file__).resolve().parent
LEVELS = ("base", "v3", "v4")  # of GUIDE_FAST_ISA
CORE, TORCH = "libguide_fast.so", "libguide_fast_torch.so"


def load() -> None:
    """Make `torch.ops.guide_fast.native_*` known where they can be; else the first call says why not."""
    with contextlib.suppress(KernelError):
        _missing()


def check_environment(environment: Mapping[str, str]) -> None:
    """Raise KernelError for what would be read past: an unknown level of GUIDE_FAST_ISA, no number of MB, no switch."""
    level = environment.get("GUIDE_FAST_ISA", "")
    if level and level not in LEVELS:
        raise KernelError(f"GUIDE_FAST_ISA={level!r} is not known; set it to one of {', '.join(LEVELS)}, or unset it")
    megabytes = environment.get("GUIDE_FAST_CACHE_MB", "")
    if megabytes and not (megabytes.isascii() and megabytes.isdigit()):
        raise KernelError(f"GUIDE_FAST_CACHE_MB={megabytes!r} is no whole number of megabytes from 0 on; unset it")
    switch = environment.get("GUIDE_FAST_WINOGRAD", "")
    if switch not in ("", "0", "1"):
        raise KernelError(f"GUIDE_FAST_WINOGRAD={switch!r} is not known; set it to 0 or 1, or unset it")


@constant
def winograd() -> bool:
    """Whether "auto" may take Winograd's convolutions on a CPU: unless GUIDE_FAST_WINOGRAD is 0."""
    return os.environ.get("GUIDE_FAST_WINOGRAD") != "0"


@constant
def missing() -> str | None:
    """Why there are no compiled kernels, or None once they are loaded."""
    return _missing()


@constant
def missing_cuda() -> str | None:
    """Why there are no compiled CUDA kernels, or None."""
    return _missing_cuda()


@cache
def _missing() -> str | None:
    check_environment(os.environ)
    path = library_folder() / TORCH
    if not path.is_file():
        return f"{path.name} is not there: install a wheel, or build with a C++ compiler (make setup)"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        said = str(error.__cause__ or error).splitlines()[0]  # torch's own sentence leaves the reason out
        return f"{path.name} does not load under torch {torch.__version__}: {said}"
    return None


@cache
def _missing_cuda() -> str | None:
    if reason := missing():
        return reason
    core = ctypes.CDLL(str(library_folder() / CORE))
    return None if core.gf_cuda_built() else "this build holds no CUDA kernels: nvcc was not there when it was built"


def instruction_set() -> str:
    """What the CPU kernels run on: "base", "AVX2", "AVX-512"; call it only where `missing()` is None."""
    level = ctypes.CDLL(str(library_folder() / CORE)).gf_instruction_set()
    return {0: "base", 3: "AVX2", 4: "AVX-512"}[level]


def library_folder() -> Path:
    """The folder of the shared libraries: that of the installed guide_fast package."""
    import guide_fast

    return Path(guide_fast.__file__).resolve().parent
