"""Where a C++ program finds the library: headers, CMake package, shared library. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from guide_fast.errors import GuideFastError

_PACKAGE = Path(__file__).resolve().parent


def include_folder() -> Path:
    """The folder of `guide_fast.h`; raises GuideFastError where the native libraries were not built."""
    return _built(_PACKAGE / "include")


def cmake_folder() -> Path:
    """What `-Dguide_fast_DIR=` takes, for `find_package(guide_fast)`; raises like `include_folder`."""
    return _built(_PACKAGE / "cmake")


def library() -> Path:
    """libguide_fast.so itself, for a loader or a linker; raises like `include_folder`."""
    return _built(_PACKAGE / "libguide_fast.so")


def _built(path: Path) -> Path:
    if not path.exists():
        raise GuideFastError(f"{path} is not there: install a wheel of guide-fast, or run `make setup` (needs g++)")
    return path
