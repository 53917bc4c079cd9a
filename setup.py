"""Builds the native libraries with CMake; everything else is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "native"


class BuildNative(build_ext):
    """libguide_fast (CPU, CUDA where nvcc is), torch.ops.guide_fast, guide_fast._native."""

    def run(self) -> None:
        """Configure, build, then put the results into the package, headers and CMake files too."""
        import pybind11
        import torch

        cmake = shutil.which("cmake") or str(Path(sys.executable).with_name("cmake"))
        ninja = shutil.which("ninja") or str(Path(sys.executable).with_name("ninja"))
        pythons = os.environ.get("GUIDE_FAST_PYTHONS", sys.executable).replace(os.pathsep, ";")
        BUILD.mkdir(parents=True, exist_ok=True)
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if Path(ninja).is_file() else []
        subprocess.run(
            [
                cmake,
                *generator,
                f"-S{ROOT / 'csrc'}",
                f"-B{BUILD}",
                "-DGF_TORCH=ON",
                f"-DGF_TORCH_DIR={Path(torch.__file__).parent}",
                f"-DGF_PYTHONS={pythons}",
                f"-DGF_PYBIND11_INCLUDE={pybind11.get_include()}",
                f"-DGF_CUDA={os.environ.get('GUIDE_FAST_CUDA', 'ON')}",
            ],
            check=True,
        )
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.run([cmake, "--build", str(BUILD), "--parallel", jobs], check=True)
        package = ROOT / "guide_fast" if self.editable_mode else Path(self.build_lib).resolve() / "guide_fast"
        package.mkdir(parents=True, exist_ok=True)
        for built in [*BUILD.glob("libguide_fast*.so"), *BUILD.glob("_native.*.so")]:
            copy = package / f".{built.name}.new"
            shutil.copy2(built, copy)
            os.replace(copy, package / built.name)  # never truncate a library that a process has mapped

    def get_output_mapping(self) -> dict[str, str]:
        """Editable installs copy nothing: the libraries are already in the package."""
        return {}


class StableWheel(bdist_wheel):
    """cp311-abi3: the torch library has no Python in it, guide_fast._native comes once per interpreter named."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any CPython from 3.11 on."""
        return ("cp311", "abi3", super().get_tag()[2])


kernels = ["guide_fast.kernels", *(f"guide_fast.kernels.{name}" for name in find_packages("kernels"))]
setup(
    packages=[*find_packages(include=["guide_fast", "guide_fast.*"]), *kernels],
    package_dir={"guide_fast.kernels": "kernels"},
    ext_modules=[Extension("guide_fast._native", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": StableWheel},
)
