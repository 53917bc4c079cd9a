"""Loads the compiled library: `torch.ops.guide_fast.native_*`."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

_FOLDER = Path(__file__).resolve().parent
CORE, TORCH = "libguide_fast.so", "libguide_fast_torch.so"


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why there are no compiled kernels, or None once they are loaded."""
    return _missing()


@torch.compiler.assume_constant_result
def missing_cuda() -> str | None:
    """Why there are no compiled CUDA kernels, or None."""
    return _missing_cuda()


@cache
def _missing() -> str | None:
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
