"""The folder that a run leaves: settings, environment, results."""

from __future__ import annotations

import json
import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from guide_fast._run_files import CONFIG, FILES, INVERSION, LATENT, SECONDS, STATE, stopped
from guide_fast.artifacts import write_bytes
from guide_fast.config import Config
from guide_fast.errors import GuideFastError, UsageError

STATES = (INVERSION, STATE, SECONDS)

__all__ = [
    "CONFIG",
    "FILES",
    "INVERSION",
    "LATENT",
    "SECONDS",
    "STATE",
    "check_run",
    "close_run",
    "environment",
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


def open_run(folder: Path, config: Config, *, resume: bool) -> None:
    """Write settings with environment; on `resume` check first that the settings are the ones of the stopped run."""
    if resume:
        check_run(folder, config)
    else:  # what an earlier run left would pass for this one's
        for name in (*FILES, *STATES):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / CONFIG, config.to_dict())
    write_json(folder / "environment.json", environment())


def close_run(folder: Path) -> None:
    """Remove what only a stopped run has."""
    for name in STATES:
        (folder / name).unlink(missing_ok=True)


def check_run(folder: Path, config: Config) -> None:
    """Raise UsageError when the run stopped in `folder` had other settings; changes nothing."""
    file = folder / CONFIG
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GuideFastError(f"{file} cannot be read ({error}); start anew without --resume") from None
        if not isinstance(before, dict) or not all(isinstance(keys, dict) for keys in before.values()):
            raise GuideFastError(f"{file} holds no settings; start anew without --resume")
        now = json.loads(json.dumps(config.to_dict()))
        different = [f"{s}.{k}" for s, keys in now.items() for k, v in keys.items() if before.get(s, {}).get(k) != v]
        if different:
            raise UsageError(f"{folder} was started with another {different[0]}; resume with the same settings")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
