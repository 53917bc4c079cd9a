"""Builds the native libraries with CMake; everything else is in pyproject.toml.

GUIDE_FAST_CUDA=auto|ON|OFF   CUDA kernels where nvcc is (default), or fail without it, or none
GUIDE_FAST_ARCHITECTURES=90a-real   CUDA kernels for these alone, in the words of CMake
GUIDE_FAST_PYTHONS=a:b        interpreters that a wheel's guide_fast._native is built for; default: all that are found
MAX_JOBS=n                    compilers at a time
"""

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
STAGE = ROOT / "build" / "stage"
OLDEST_PYTHON = (3, 11)
# an interpreter says its version, the ending of its extension modules, whether its headers are there
ABOUT = """
import os, sys, sysconfig
headers = os.path.join(sysconfig.get_paths()["include"], "Python.h")
print(*sys.version_info[:2], sysconfig.get_config_var("EXT_SUFFIX"), os.path.isfile(headers), sys.implementation.name)
"""


class BuildNative(build_ext):
    """libguide_fast (CPU, CUDA where nvcc is), torch.ops.guide_fast, guide_fast._native, headers, CMake package."""

    def run(self) -> None:
        """Configure, build, put the results into the package."""
        import pybind11
        import torch

        cmake, ninja, nvcc = _tool("cmake"), _tool("ninja"), _nvcc()
        pythons = _pythons(only_this=self.editable_mode)
        settings = [
            *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
            "-DCMAKE_INSTALL_LIBDIR=.",
            "-DGF_TORCH=ON",
            f"-DGF_TORCH_DIR={Path(torch.__file__).parent}",
            f"-DGF_PYTHONS={';'.join(pythons)}",
            f"-DGF_PYBIND11_INCLUDE={pybind11.get_include()}",
            *(["-DGF_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}"] if nvcc else ["-DGF_CUDA=OFF"]),
        ]
        if architectures := os.environ.get("GUIDE_FAST_ARCHITECTURES"):
            settings.append(f"-DGF_CUDA_ARCHITECTURES={architectures}")
        else:
            settings.append("-UGF_CUDA_ARCHITECTURES")  # back to all of them
        _forget_other_builds(f"{ROOT}\n{bool(ninja)}\n{nvcc}\n{os.environ.get('CXX')}\n")
        subprocess.run([cmake or "cmake", f"-S{ROOT / 'csrc'}", f"-B{BUILD}", *settings], check=True)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run([cmake or "cmake", "--build", str(BUILD), "--parallel", jobs], check=True)
        shutil.rmtree(STAGE, ignore_errors=True)
        subprocess.run([cmake or "cmake", "--install", str(BUILD), "--prefix", str(STAGE)], check=True)
        package = ROOT / "guide_fast" if self.editable_mode else Path(self.build_lib).resolve() / "guide_fast"
        _replace(package)
        print(f"guide_fast: {'CUDA kernels by ' + nvcc if nvcc else 'CPU kernels only, nvcc is not here'}")
        print(f"guide_fast: guide_fast._native for {', '.join(pythons) or 'no Python: none here has its Python.h'}")

    def get_output_mapping(self) -> dict[str, str]:
        """Editable installs copy nothing: the libraries are already in the package."""
        return {}


class StableWheel(bdist_wheel):
    """cp311-abi3: the torch library has no Python in it, guide_fast._native comes once per interpreter."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any CPython from 3.11 on."""
        return ("cp311", "abi3", super().get_tag()[2])


def _tool(name: str) -> str | None:
    """The one beside this interpreter first: that is the one the build asked for."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _nvcc() -> str | None:
    """The CUDA compiler to use; exits when it is wanted but not there."""
    wanted = os.environ.get("GUIDE_FAST_CUDA", "auto").lower()
    if wanted in ("off", "0", "false"):
        return None
    places = [f"{os.environ[name]}/bin/nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = next(filter(None, map(shutil.which, [os.environ.get("CUDACXX") or "nvcc", *places])), None)
    if found is None and wanted in ("on", "1", "true"):
        sys.exit("GUIDE_FAST_CUDA=ON but there is no nvcc; put it on PATH, or set CUDACXX or CUDA_HOME")
    return found


def _pythons(*, only_this: bool) -> list[str]:
    """Interpreters for guide_fast._native: this one first, then those named, else one of each version found."""
    named = os.environ.get("GUIDE_FAST_PYTHONS")
    if named:
        candidates = [shutil.which(name) or name for name in named.split(os.pathsep)]
    elif only_this:
        candidates = []
    else:
        pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
        on_path = [shutil.which(f"python3.{minor}") for minor in range(OLDEST_PYTHON[1], 20)]
        candidates = [*filter(None, on_path), *sorted(map(str, Path(pyenv).glob("versions/*/bin/python3")))]
    chosen: dict[str, str] = {}  # by the ending of their modules
    for python in [sys.executable, *candidates]:
        try:
            answer = subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            if named:
                sys.exit(f"GUIDE_FAST_PYTHONS names {python}, which does not start: {error}")
            continue
        major, minor, suffix, headers, implementation = answer
        usable = (int(major), int(minor)) >= OLDEST_PYTHON and headers == "True" and implementation == "cpython"
        if usable:
            chosen.setdefault(suffix, python)
        elif named:
            sys.exit(f"{python} is {implementation} {major}.{minor}, Python.h: {headers}; name a CPython from 3.11 on")
    return list(chosen.values())


def _forget_other_builds(key: str) -> None:
    """Start afresh when the folder was built from another checkout or by other compilers; CMake refuses, or mixes."""
    stamp = BUILD / ".made-by"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != key:
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir(parents=True)
        stamp.write_text(key, encoding="utf-8")


def _replace(package: Path) -> None:
    """Put what is staged into the package, in place of an earlier build."""
    for old in package.glob("_native.*.so"):
        if not (STAGE / old.name).is_file():
            old.unlink()  # of an interpreter that is no longer asked for
    for file in filter(Path.is_file, STAGE.rglob("*")):
        target = package / file.relative_to(STAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = target.with_name(f".{target.name}.new")
        shutil.copy2(file, copy)
        os.replace(copy, target)  # never truncate a library that a process has mapped


linked = ("kernels", "bench")  # folders of the repository that are packages of guide_fast
inside = [
    f"guide_fast.{name}" for folder in linked for name in (folder, *(f"{folder}.{p}" for p in find_packages(folder)))
]
setup(
    packages=[
        *find_packages(include=["guide_fast", "guide_fast.*"], exclude=[f"guide_fast.{name}*" for name in linked]),
        *inside,
    ],
    package_dir={f"guide_fast.{name}": name for name in linked},
    ext_modules=[Extension("guide_fast._native", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": StableWheel},
)
