"""The folder that a run leaves: settings, environment, results."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from guide_fast._run_files import CONFIG, DELTA, ENVIRONMENT, FILES, INVERSION, LATENT, SPENT, STATE, STATES, stopped
from guide_fast.artifacts import write_bytes
from guide_fast.config import Config
from guide_fast.resumption import uninterrupted

__all__ = [
    "CONFIG",
    "DELTA",
    "FILES",
    "INVERSION",
    "LATENT",
    "SPENT",
    "STATE",
    "close_run",
    "environment",
    "give_up_run",
    "open_run",
    "peak_memory_bytes",
    "stopped",
    "write_json",
]


def environment() -> dict[str, Any]:
    """What ran the run: versions, platform, threads."""
    packages = ("guide-fast", "torch", "numpy", "safetensors", "pillow")
    versions = {package: _version(package) for package in packages}
    return versions | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # Linux counts in KiB


def write_json(path: Path, value: Any) -> None:
    """Indented, sorted, atomic; NaN is an error."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n").encode())


def open_run(folder: Path, config: Config, name: str, save: Callable[[Path], None], *, resume: bool) -> None:
    """Let `save` write the file `name`, from which the run can be resumed, in place of what an earlier run left.

    That file comes first: where the disk refuses it, the folder stays as it is. Settings with environment follow. The
    loop's state stays when this run goes on from it (`resume`). Ctrl-C waits until all is done.
    """
    kept = {name, STATE, SPENT} if resume else {name}
    with uninterrupted():
        save(folder / name)
        for other in (*FILES, *STATES):  # would pass for this run's
            if other not in kept:
                (folder / other).unlink(missing_ok=True)
        write_json(folder / CONFIG, config.to_dict())
        write_json(folder / ENVIRONMENT, environment())


def give_up_run(folder: Path) -> None:
    """Leave of a run that can only fail again what `guide-fast invert` would: the latent."""
    for name in (CONFIG, ENVIRONMENT, *STATES):
        (folder / name).unlink(missing_ok=True)


def close_run(folder: Path) -> None:
    """Remove what only a stopped run has."""
    for name in STATES:
        (folder / name).unlink(missing_ok=True)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
