"""`guide-fast assets`: what is said of the cache, with which exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guide_fast import assets
from guide_fast.errors import GuideFastError, IntegrityError

DEMO_FILE = "sources/scikit-image-0.26.0/astronaut.png"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that may not be filled from a registry."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def tampered(cache: Path) -> Path:
    """The demonstration photo with other bytes than pinned."""
    file = cache / DEMO_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another photo")
    return file


def test_list_names_everything_a_reader_needs(run: Any, cache: Path) -> None:
    outcome = run("assets", "list", "--json")
    assert outcome.code == 0
    assert outcome.json["home"] == str(cache)
    for record in outcome.json["assets"]:
        assert record["state"] == "missing"
        assert len(record["sha256"]) == 64
        assert record["size"] > 0
        assert all(record[key] for key in ("name", "role", "source", "version", "licence", "notice", "files"))
    text = run("assets", "list").stdout
    for record in outcome.json["assets"]:
        assert all(record[key] in text for key in ("name", "source", "sha256", "licence"))
    assert not cache.exists()


def test_list_sees_what_is_cached(run: Any, tampered: Path) -> None:
    states = {record["name"]: record["state"] for record in run("assets", "list", "--json").json["assets"]}
    assert states.pop("demo-photo") == "cached"
    assert set(states.values()) == {"missing"}


def test_verify_of_a_missing_asset_fails(run: Any, cache: Path) -> None:
    outcome = run("assets", "verify", "faceres")
    assert outcome.code == 1
    assert "guide-fast assets fetch faceres" in outcome.stdout


def test_verify_finds_a_tampered_asset(run: Any, tampered: Path) -> None:
    outcome = run("assets", "verify", "--json")
    assert outcome.code == 5
    (found,) = [record for record in outcome.json["assets"] if record["state"] == "tampered"]
    assert (found["name"], found["path"]) == ("demo-photo", str(tampered))


def test_fetch_refuses_a_tampered_asset(run: Any, tampered: Path) -> None:
    outcome = run("assets", "fetch", "demo-photo")
    assert outcome.code == 5
    assert outcome.stderr.count("\n") == 1
    assert "--force" in outcome.stderr
    assert tampered.read_bytes() == b"another photo"


def test_fetch_offline_says_why_not(run: Any, cache: Path) -> None:
    outcome = run("assets", "fetch", "faceres")
    assert outcome.code == 1
    assert "GUIDE_FAST_OFFLINE=1" in outcome.stderr
    outcome = run("assets", "fetch", "faceres", "--json")
    assert "GUIDE_FAST_OFFLINE=1" in outcome.json["assets"][0]["error"]


def test_one_failure_does_not_keep_the_others_away(run: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, progress: Any, *, force: bool) -> Path:
        if name == "faceres":
            raise GuideFastError("npm is not on PATH")
        if name == "mtcnn":
            raise IntegrityError("other bytes than pinned")
        progress(f"converting {name}")
        return cache / name

    monkeypatch.setattr(assets, "fetch", fetch)
    outcome = run("assets", "fetch")
    assert outcome.code == 5
    assert "npm is not on PATH" in outcome.stderr
    assert "converting mobileface" in outcome.stderr
    assert str(cache / "demo-photo") in outcome.stdout
    records = run("assets", "fetch", "--json").json["assets"]
    assert len(records) == len(assets.list_assets())
    assert sum("error" in record for record in records) == 2


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_unknown_asset_is_wrong_use(run: Any, cache: Path, command: str) -> None:
    outcome = run("assets", command, "facerez")
    assert outcome.code == 2
    assert "facerez" in outcome.stderr
    assert "faceres" in outcome.stderr


def test_dry_run_fetches_nothing(run: Any, cache: Path) -> None:
    outcome = run("assets", "fetch", "--dry-run", "--json")
    assert outcome.code == 0
    assert len(outcome.json["would_fetch"]) == len(assets.list_assets())
    assert not cache.exists()


def test_group_without_a_command_shows_its_help(run: Any) -> None:
    outcome = run("assets")
    assert outcome.code == 2
    assert "verify" in outcome.stdout
