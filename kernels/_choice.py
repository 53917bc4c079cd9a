"""Measures which implementation is fastest on this device for a shape, once, then remembers it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import torch

VERSION = 2  # of the file; another one is measured anew
FILE = "kernels.json"
SOFTWARE = ("torch", "triton")  # another version of these compiles, or calls, other kernels: measured anew

Candidates = Mapping[str, Callable[[], None]]
Timer = Callable[[Callable[[], None]], float]  # milliseconds of one call


class Choice(TypedDict):
    """The fastest; milliseconds by name, None for one that failed."""

    impl: str
    ms: dict[str, float | None]


_known: dict[Path, dict[str, Choice]] = {}
_lock = threading.RLock()


def choose(
    op: str,
    key: str,
    candidates: Candidates,
    device: torch.device,
    *,
    timer: Timer | None = None,
    path: Path | None = None,
) -> str:
    """The fastest of `candidates` (name -> one call) for `key`, which says op's shape, dtype, gradients.

    Measured once per device, then kept in memory and in `path` (default: `default_path()`). A candidate that raises
    loses. While a CUDA graph is captured nothing can be measured: the first candidate then, unless known.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    path = default_path() if path is None else path
    name = f"{_device_name(device)} | {op} | {key} | {versions()}"
    with _lock:
        known = _load(path)
        entry = known.get(name)
        if entry is not None and entry["impl"] in candidates and set(candidates) <= set(entry["ms"]):
            return entry["impl"]
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return next(iter(candidates))
        known[name] = _measure(candidates, timer or _cuda_timer(device))
        _store(path, name, known[name])
        return known[name]["impl"]


@cache
def versions() -> str:
    """Of the software that the measured times belong to: "torch 2.13.0, triton 3.4.0"."""
    found = []
    for name in SOFTWARE:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def table(path: Path | None = None) -> dict[str, Choice]:
    """What is known: "device | op | shape | versions" -> {"impl": the fastest, "ms": {name: time, null: it failed}}."""
    with _lock:
        return dict(_load(default_path() if path is None else path))


def forget() -> None:
    """Drop what is in memory; the file stays."""
    with _lock:
        _known.clear()


def default_path() -> Path:
    """kernels.json under $GUIDE_FAST_HOME, else under the platform's cache directory."""
    if home := os.environ.get("GUIDE_FAST_HOME"):
        return Path(home) / FILE
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "guide-fast" / FILE
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "guide-fast" / FILE
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "guide-fast" / FILE
    return Path(os.path.expanduser("~")) / ".cache" / "guide-fast" / FILE  # noqa: PTH111 - never raises


def _measure(candidates: Candidates, timer: Timer) -> Choice:
    times: dict[str, float | None] = {}
    failures = []
    for name, call in candidates.items():
        try:
            times[name] = timer(call)
        except Exception as error:  # whatever a kernel raises on a device it does not fit
            times[name] = None
            failures.append(error)
    worked = {name: time for name, time in times.items() if time is not None}
    if not worked:
        raise failures[0]
    return {"impl": min(worked, key=worked.__getitem__), "ms": times}


def _cuda_timer(device: torch.device) -> Timer:
    def timer(call: Callable[[], None], warm_up: int = 3, repeats: int = 10) -> float:
        """Median over `repeats` of one call, by CUDA events; the first calls compile."""
        with torch.cuda.device(device):
            for _ in range(warm_up):
                call()
            pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
            for start, end in pairs:
                start.record()
                call()
                end.record()
            torch.cuda.synchronize()
        times = sorted(start.elapsed_time(end) for start, end in pairs)
        return times[repeats // 2]

    return timer


@cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _load(path: Path) -> dict[str, Choice]:
    if path not in _known:
        _known[path] = _read(path)
    return _known[path]


def _read(path: Path) -> dict[str, Choice]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["choices"] if content["version"] == VERSION else {}
        return {
            name: {"impl": str(entry["impl"]), "ms": dict(entry["ms"])}
            for name, entry in entries.items()
            if entry["impl"] in entry["ms"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # not there, or damaged: measured anew


def _store(path: Path, name: str, entry: Choice) -> None:
    """Atomically, with what other processes stored meanwhile; a directory that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = _read(path) | {name: entry}
        content = json.dumps({"version": VERSION, "choices": entries}, indent=1, sort_keys=True)
        file = tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".json", delete=False, encoding="utf-8")  # noqa: SIM115
        try:
            with file:
                file.write(content + "\n")
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink()
            raise
