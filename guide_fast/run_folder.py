"""The folder that a run leaves: settings, environment, results."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from guide_fast._run_files import (
    CONFIG,
    DELTA,
    EARLIER,
    ENVIRONMENT,
    FILES,
    INVERSION,
    LATENT,
    SPENT,
    STATE,
    STATES,
    stopped,
)
from guide_fast.artifacts import write_bytes
from guide_fast.config import Config
from guide_fast.errors import GuideFastError
from guide_fast.resumption import uninterrupted

__all__ = [
    "CONFIG",
    "DELTA",
    "FILES",
    "INVERSION",
    "LATENT",
    "SPENT",
    "STATE",
    "EarlierRun",
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


class EarlierRun:
    """What an earlier run left in `folder` (None: there is none), set aside while the present one may still diverge.

    Used as a context manager around the present run, at whose end it is gone unless it was brought back.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._opened = False

    def make_way(self, names: list[str], written: str, save: Callable[[Path], None]) -> None:
        """Let `save` write the file `written`, then remove `names`; the first time both are set aside instead.

        Where the disk refuses the file, the folder stays as it is.
        """
        assert self._folder is not None
        folder, aside = self._folder, self._folder / EARLIER
        # a run that was killed has set it aside already
        keep = not self._opened and not ((aside / DELTA).is_file() and not (folder / DELTA).is_file())
        if keep:
            shutil.rmtree(aside, ignore_errors=True)
        try:
            if keep and any((folder / name).is_file() for name in (written, *names)):
                aside.mkdir()
                if (folder / written).is_file():
                    shutil.copy2(folder / written, aside / written)
            save(folder / written)
        except BaseException as error:
            if keep:
                shutil.rmtree(aside, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise GuideFastError(
                f"cannot set aside the earlier run in {folder}: {error.strerror or error}; free some space or choose "
                "another folder with --out"
            ) from None
        for name in names:
            if keep and (folder / name).is_file():
                os.replace(folder / name, aside / name)
            (folder / name).unlink(missing_ok=True)
        self._opened = True

    def bring_back(self) -> bool:
        """Put the earlier run in the place of the present one; False where there was none."""
        if self._folder is None or not self._opened or not (self._folder / EARLIER).is_dir():
            return False
        with uninterrupted():
            for name in (*FILES, *STATES):
                (self._folder / name).unlink(missing_ok=True)
            for file in (self._folder / EARLIER).iterdir():
                os.replace(file, self._folder / file.name)
            (self._folder / EARLIER).rmdir()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None and self._opened:
            with uninterrupted():
                shutil.rmtree(self._folder / EARLIER, ignore_errors=True)


def open_run(
    folder: Path,
    config: Config,
    name: str,
    save: Callable[[Path], None],
    *,
    resume: bool,
    earlier: EarlierRun | None = None,
) -> None:
    """Let `save` write the file `name`, from which the run can be resumed, in place of what an earlier run left.

    That file comes first: where the disk refuses it, the folder stays as it is. Settings with environment follow. The
    loop's state stays when this run goes on from it (`resume`). Ctrl-C waits until all is done.
    """
    kept = {name, STATE, SPENT} if resume else {name}
    others = [other for other in (*FILES, *STATES) if other not in kept]  # would pass for this run's
    with uninterrupted():
        if earlier is None or resume:
            save(folder / name)
            for other in others:
                (folder / other).unlink(missing_ok=True)
        else:
            earlier.make_way(others, name, save)
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
    shutil.rmtree(folder / EARLIER, ignore_errors=True)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
