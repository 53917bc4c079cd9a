"""Folders that appear whole or not at all, without PyTorch."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from guide_fast.errors import GuideFastError, UsageError
from guide_fast.export.folder import MANIFEST


def check_target(out: Path, *, force: bool) -> None:
    """Raise UsageError when `out` cannot become an exported generator, before any work was done for nothing.

    `force` allows to replace an exported generator, never another folder.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise UsageError(f"{out} holds other files than an exported generator; name a new folder with --out")
    if not force:
        raise UsageError(
            f"{out} holds an exported generator already; add --force to replace it, or name another folder"
        )


@contextlib.contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the block ends; nothing is left when it fails.

    Raises GuideFastError when the disk refuses.
    """
    out = Path(out)
    check_target(out, force=force)
    work: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield work
        work.chmod(0o777 & ~_umask())
        for file in work.iterdir():
            _flush(file)
        _put(work, out)
    except OSError as error:
        raise GuideFastError(
            f"cannot write {out}: {error.strerror or error}; free some space or choose another folder with --out"
        ) from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _put(work: Path, out: Path) -> None:
    if not out.exists():
        os.replace(work, out)
        return
    earlier = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        os.replace(out, earlier)  # onto an empty folder
        try:
            os.replace(work, out)
        except OSError:
            os.replace(earlier, out)
            raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
