"""Pinned third-party weights: fetched once, converted to safetensors, verified whenever they are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from guide_fast._asset_fetch import Report, download, extract, sha256_file, write_atomic
from guide_fast._asset_pins import Archive, Asset, PinnedFile, asset, list_assets
from guide_fast.errors import GuideFastError, IntegrityError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Archive",
    "Asset",
    "AssetStatus",
    "PinnedFile",
    "asset",
    "available",
    "fetch",
    "home",
    "list_assets",
    "load",
    "path",
    "verify",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssetStatus:
    """What `verify` found: `path` is the file that is served, `detail` one sentence."""

    name: str
    state: Literal["ok", "missing", "tampered"]
    path: Path
    detail: str


def home() -> Path:
    """The folder of everything cached: GUIDE_FAST_HOME, else `guide-fast` in the platform's cache folder."""
    if explicit := os.environ.get("GUIDE_FAST_HOME"):
        return Path(explicit).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "guide-fast"


def fetch(name: str, progress: Report | None = None, *, force: bool = False) -> Path:
    """Make `name` ready for use; returns the served file: converted safetensors, or the pinned file itself.

    Downloads only the pinned files that the cache lacks, or holds with other bytes; `force` converts again even where
    a result lies there, and is the way to replace a tampered one. Of two processes at once, the second waits for the
    first. `progress` receives one line per phase. Raises UsageError (unknown name), IntegrityError (other bytes than
    pinned or recorded), GuideFastError (no client, no network, no space).
    """
    pin = asset(name)
    report = progress or _log.info
    with _workspace(pin.archive) as work:
        status = _state(pin)
        if status.state == "ok" and not force:
            return status.path
        if status.state == "tampered" and not force:
            raise IntegrityError(status.detail)
        if not all(_intact(_source(pin, file), file) for file in pin.files):
            _bring(pin, work, report)
        if pin.converter is not None:
            report(f"converting {name}")
            _convert(pin, work)
        report(f"{name}: {pin.licence}. {pin.notice}")
        return status.path


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `name` on the CPU, with its config (as JSON gives it back: lists, not tuples).

    The bytes are compared with the recorded sha256 on every call (80 ms for the largest asset, 40 MB); the tensors are
    the caller's to keep. Fetches what is absent unless GUIDE_FAST_OFFLINE=1. Raises what `fetch` raises.
    """
    pin = asset(name)
    if pin.converter is None:
        raise UsageError(f"asset {name!r} is a file, not a set of tensors; use assets.path({name!r})")
    if _recorded(pin) is None or not _served(pin).is_file():
        fetch(name)
    content, recorded = _served(pin).read_bytes(), str(_recorded(pin))
    digest = hashlib.sha256(content).hexdigest()
    if digest != recorded:
        raise IntegrityError(_tampered(name, _served(pin), recorded, digest))
    from safetensors.torch import load as parse

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return parse(content), json.loads(header["__metadata__"]["config"])


def path(name: str) -> Path:
    """The verified file of an asset that is kept as a file. Fetches it when absent; raises what `fetch` raises."""
    pin = asset(name)
    if pin.converter is not None:
        raise UsageError(f"asset {name!r} is a set of tensors, not a file; use assets.load({name!r})")
    return fetch(name)


def verify(name: str) -> AssetStatus:
    """Compare the cached bytes of `name` with their recorded sha256. Never downloads."""
    return _state(asset(name))


def available(name: str) -> bool:
    """Whether `load` or `path` would work without a network. Looks at names only; `verify` reads the bytes."""
    pin = asset(name)
    sources = all(_source(pin, file).is_file() for file in pin.files)
    return sources or (pin.converter is not None and _recorded(pin) is not None and _served(pin).is_file())


def _source(pin: Asset, file: PinnedFile) -> Path:
    return home() / "sources" / pin.archive.slug / file.name


def _served(pin: Asset) -> Path:
    if pin.converter is None:
        return _source(pin, pin.files[0])
    return home() / "assets" / f"{pin.name}-{pin.archive.version}-{_fingerprint(pin)[:8]}.safetensors"


def _manifest(pin: Asset) -> Path:
    return _served(pin).with_suffix(".json")


def _fingerprint(pin: Asset) -> str:
    # The converter's source counts: a newer converter re-converts from the kept files, and never serves stale tensors.
    digest = hashlib.sha256("".join(file.sha256 for file in pin.files).encode())
    module = str(pin.converter).partition(":")[0]
    with contextlib.suppress(ModuleNotFoundError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()


def _recorded(pin: Asset) -> str | None:
    """The sha256 written down when the asset was converted; None when there is no readable record."""
    try:
        return str(json.loads(_manifest(pin).read_text(encoding="utf-8"))["sha256"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _state(pin: Asset) -> AssetStatus:
    served = _served(pin)
    expected = pin.files[0].sha256 if pin.converter is None else _recorded(pin)
    if expected is None or not served.is_file():
        return AssetStatus(pin.name, "missing", served, f"not in the cache; run `guide-fast assets fetch {pin.name}`")
    digest = sha256_file(served)
    if digest != expected:
        return AssetStatus(pin.name, "tampered", served, _tampered(pin.name, served, expected, digest))
    return AssetStatus(pin.name, "ok", served, f"sha256 {digest[:12]} as recorded")


def _tampered(name: str, file: Path, expected: str, found: str) -> str:
    return (
        f"{file} has sha256 {found[:12]}, {expected[:12]} was expected; "
        f"run `guide-fast assets fetch {name} --force` to replace it"
    )


def _intact(file: Path, pinned: PinnedFile) -> bool:
    return file.is_file() and sha256_file(file) == pinned.sha256


def _bring(pin: Asset, work: Path, report: Report) -> None:
    if os.environ.get("GUIDE_FAST_OFFLINE") == "1":
        raise GuideFastError(
            f"asset {pin.name!r} is not in {home()} while GUIDE_FAST_OFFLINE=1 forbids to fetch it; unset that, or "
            "copy the folder of a machine that has it"
        )
    archive_file = download(pin.archive, work, report)
    # All assets of this archive are kept: the download is the expensive part, the files are small.
    files = [file for other in list_assets() if other.archive == pin.archive for file in other.files]
    extract(archive_file, pin.archive, files, _source(pin, pin.files[0]).parent)


def _convert(pin: Asset, work: Path) -> None:
    from safetensors.torch import save

    module, _, function = str(pin.converter).partition(":")
    try:
        convert = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise GuideFastError(f"asset {pin.name!r}: converter {pin.converter} is missing ({error})") from error
    tensors, config = convert({file.name: _source(pin, file) for file in pin.files})
    content = save(
        {key: tensor.detach().contiguous() for key, tensor in tensors.items()},
        metadata={"config": json.dumps(config, sort_keys=True)},
    )
    served = _served(pin)
    served.parent.mkdir(parents=True, exist_ok=True)
    for stale in served.parent.glob(f"{pin.name}-{pin.archive.version}-*"):
        with contextlib.suppress(OSError):  # another process may hold it open where that forbids removal
            stale.unlink()
    record = {
        "name": pin.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "source": pin.archive.source,
        "archive_sha256": pin.archive.sha256,
        "files": {file.name: file.sha256 for file in pin.files},
        "converter": pin.converter,
        "licence": pin.licence,
        "notice": pin.notice,
    }
    write_atomic(served, content, work)
    # The record comes last: a conversion that was cut short counts as missing.
    write_atomic(_manifest(pin), (json.dumps(record, indent=2) + "\n").encode(), work)


@contextlib.contextmanager
def _workspace(archive: Archive) -> Iterator[Path]:
    """An empty folder on the cache's file system, held by one process at a time; empty again whatever happens."""
    root = home()
    work = root / "work" / archive.slug
    try:
        for folder in (root / "locks", work.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "locks" / f"{archive.slug}.lock"):
            shutil.rmtree(work, ignore_errors=True)  # what a killed process left
            work.mkdir()
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GuideFastError(
                f"no space left in {root} for {archive.source}, which needs about {3 * archive.size / 1e6:.0f} MB "
                "while it is fetched; free some, or set GUIDE_FAST_HOME to a folder on a larger disk"
            ) from error
        raise GuideFastError(
            f"cannot write to {error.filename or root} ({error.strerror}); "
            "set GUIDE_FAST_HOME to a folder that you may write to"
        ) from error
