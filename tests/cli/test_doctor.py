"""`guide-fast doctor`: what works, what to do about the rest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from guide_fast.cli import checks
from guide_fast.kernels import _extension


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_working_machine_exits_zero_though_nothing_is_fetched(run: Any, cache: Path) -> None:
    outcome = run("doctor", "--json")
    assert outcome.code == 0
    found = {check["name"]: check for check in outcome.json["checks"]}
    assert {"Python", "torch", "threads", "memory", "disk", "pip", "npm", "C++ compiler", "CUDA"} <= found.keys()
    for name in ("mobilestylegan-ffhq-1024", "faceres", "held-out judge", "low-resolution head"):
        assert found[name]["state"] == "missing"
        assert "guide-fast" in found[name]["advice"]
    assert not cache.exists()


def test_everything_short_of_ok_comes_with_advice(run: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    found = run("doctor", "--json").json["checks"]
    assert {check["name"] for check in found if check["state"] != "ok"} >= {"npm", "C++ compiler"}
    assert all(check["advice"] for check in found if check["state"] != "ok")


def test_required_thing_that_is_broken_exits_one(run: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OLDEST_TORCH", (99, 0))
    outcome = run("doctor")
    assert outcome.code == 1
    assert "broken" in outcome.stdout
    assert 'pip install "torch>=99.0"' in outcome.stdout


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.13.0+cpu", "ok"), ("2.11", "ok"), ("2.9.1", "broken"), ("3.0.0a0+git12", "ok"), ("1.13.1", "broken")],
)
def test_torch_version_is_compared_by_number(version: str, state: str) -> None:
    assert checks.judge_torch(version, "way").state == state


def test_old_python_is_broken() -> None:
    assert checks.check_python((3, 10)).state == "broken"
    assert checks.check_python((3, 14)).state == "ok"


def test_little_memory_is_named() -> None:
    check = checks.check_memory(4_000_000_000)
    assert (check.state, check.found) == ("missing", "4.0 GB")
    assert "6.0 GB" in check.advice


def test_full_disk_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    _, disk = checks.check_cache(cache)
    assert disk.state == "missing"
    assert "GUIDE_FAST_HOME" in disk.advice


def test_cache_that_is_a_file_is_broken(cache: Path) -> None:
    cache.write_text("a file", encoding="utf-8")
    (check,) = checks.check_cache(cache)
    assert check.state == "broken"
    assert "GUIDE_FAST_HOME" in check.advice


def test_cached_head_is_named_without_vouching_for_it(cache: Path) -> None:
    (cache / "heads").mkdir(parents=True)
    (cache / "heads" / "head-256-0123456789abcdef.safetensors").touch()
    assert checks.check_low_resolution(cache).found == "256 px in the cache, checked when used"


def test_layers_of_the_generator_are_listed(run: Any, pipeline: Any) -> None:
    outcome = run("doctor", "--layers", "--json")
    assert outcome.code == 0
    assert outcome.json == {"generator": "tiny", "layers": {"coarse": 4, "fine": 3}}
    assert "coarse" in run("doctor", "--layers").stdout


def test_two_reports_at_once_are_wrong_use(run: Any, pipeline: Any) -> None:
    assert run("doctor", "--layers", "--kernels").code == 2


@pytest.mark.parametrize(
    ("no_cuda", "said"),
    [(None, "AVX2 and CUDA kernels"), ("nvcc was not there", "nvcc was not there")],
)
def test_doctor_says_what_the_compiled_kernels_hold(no_cuda: str | None, said: str) -> None:
    check = checks.judge_native("AVX2", no_cuda)
    assert (check.state, bool(check.advice)) == ("ok", no_cuda is not None)
    assert said in check.found


def test_doctor_repeats_why_an_environment_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_FAST_ISA", "avx2")
    _extension._missing.cache_clear()
    check = next(iter(checks.check_native()))
    monkeypatch.undo()
    _extension._missing.cache_clear()
    assert check.state == "missing" and "GUIDE_FAST_ISA='avx2'" in check.found


def test_doctor_names_the_cmake_folder(run: Any, cache: Path) -> None:
    found = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert {"compiled kernels", "guide_fast._native", "C++ package"} <= found.keys()
    if found["C++ package"]["state"] == "ok":
        folder = found["C++ package"]["found"].removeprefix("-Dguide_fast_DIR=")
        assert (Path(folder) / "guide_fast-config.cmake").is_file()


def add_file(cache: Path, name: str) -> None:
    """Only names are looked at; bytes are compared where they are read."""
    (cache / "brought").mkdir(parents=True, exist_ok=True)
    (cache / "brought" / f"{name}.safetensors").touch()


def test_networks_of_the_user_are_told_apart_by_use(run: Any, cache: Path) -> None:
    nothing = {check["name"]: check for check in run("doctor", "--json").json["checks"]}["networks to bring"]
    assert nothing["state"] == "ok"  # optional, so that nothing is amiss
    assert "curricularface-ir101 (id_curricularface) or inception-v3-fid (fid_inception)" in nothing["advice"]
    add_file(cache, "curricularface-ir101")
    add_file(cache, "lpips-alex")
    found = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert found["curricularface-ir101"]["found"].endswith("every evaluation (id_curricularface)")
    assert found["lpips-alex"]["found"].endswith("Python code that names it (perceptual network)")
    assert "lpips-alex" not in found["networks to bring"]["found"]
    assert "curricularface" not in found["networks to bring"]["advice"]
