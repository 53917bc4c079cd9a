"""What every benchmark result carries: commit, versions, device."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Commit, versions, processor, threads."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
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


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in file.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
