"""What every benchmark result carries: commit, versions, device."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from guide_fast.kernels import _extension

RESULTS = Path(__file__).parent / "results"


def provenance(*, cuda: bool = False) -> dict[str, Any]:
    """Commit, versions, processor, threads; with `cuda` what is to be known of the current device."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return ({"cuda": _cuda()} if cuda else {}) | {
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown: no git here",
        "uncommitted_changes": None if status is None else bool(status),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "clocks": _clocks(),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, mean, p20, p80, least, greatest."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return {
        "median": tensor.quantile(0.5).item(),
        "mean": tensor.mean().item(),
        "p20": tensor.quantile(0.2).item(),
        "p80": tensor.quantile(0.8).item(),
        "min": tensor.min().item(),
        "max": tensor.max().item(),
    }


def write(name: str, device: str, result: dict[str, Any]) -> Path:
    """Store as bench/results/<device>/<name>.json."""
    path = RESULTS / device / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def slug() -> str:
    """The current CUDA device's name as a folder: `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


def _cuda() -> dict[str, Any]:
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    found = {
        "device": device.name,
        "capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "memory_bytes": device.total_memory,
        "l2_bytes": device.L2_cache_size,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "compiled_kernels": _extension.missing_cuda() or "loaded",
        "triton": _triton_version(),
    }
    return found | _reading("driver_version", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu")


def _triton_version() -> str | None:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return None


def _reading(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the device as it was found; nothing where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return {}
    return dict(zip(fields, map(str.strip, line.split(",")), strict=False))


def _git(*arguments: str) -> str | None:
    """What git says; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _clocks() -> dict[str, Any]:
    """What the machine says of the processor's clock, load, as found; None for what it does not say."""
    frequencies = [
        float(line.split(":", 1)[1])
        for line in _text(Path("/proc/cpuinfo")).splitlines()
        if line.startswith("cpu MHz") and line.split(":", 1)[1].strip()
    ]
    policy = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    governor = _text(policy / "scaling_governor").strip()
    highest = _text(policy / "cpuinfo_max_freq").strip()
    load = _text(Path("/proc/loadavg")).split()
    return {
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "mhz": round(sum(frequencies) / len(frequencies), 1) if frequencies else None,
        "max_mhz": int(highest) / 1000 if highest else None,
        "governor": governor or None,
        "load_1_minute": float(load[0]) if load else None,
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in file.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
