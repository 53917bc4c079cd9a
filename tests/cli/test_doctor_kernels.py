"""`guide-fast doctor --kernels`: which implementations run here, why the others do not, what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from guide_fast.cli import kernel_checks
from guide_fast.kernels import _choice, _extension, _triton


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, where measured choices lie."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return tmp_path


def test_every_implementation_is_listed_with_the_reason_why_it_cannot_run(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = run("doctor", "--kernels", "--json")
    assert outcome.code == 0
    found = {it["name"]: it for it in outcome.json["implementations"]}
    assert list(found) == ["reference", "triton", "cuda", "cpu"]
    assert found["reference"]["state"] == "ok"
    assert "CUDA" in found["cuda"]["reason"] or "not there" in found["cuda"]["reason"]
    assert all(bool(it["reason"]) == (it["state"] == "missing") for it in found.values())


def test_every_operation_is_listed(run: Any) -> None:
    outcome = run("doctor", "--kernels", "--json")
    operations = outcome.json["operations"]
    assert operations.keys() >= {"bias_act", "modulated_conv2d"}
    assert all(has["reference"] for has in operations.values())
    assert all({"triton", "cuda"} <= has.keys() for has in operations.values())
    assert "KernelError" not in operations
    assert "dense" not in operations["modulated_conv2d"]


def test_missing_triton_and_a_build_without_nvcc_are_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "missing", lambda: "triton is not installed: pip install triton")
    monkeypatch.setattr(_extension, "missing_cuda", lambda: "this build holds no CUDA kernels: nvcc was not there")
    monkeypatch.setattr(_extension, "missing", lambda: None)
    monkeypatch.setattr(_extension, "instruction_set", lambda: "AVX2")
    said = run("doctor", "--kernels").stdout
    assert "missing triton: absent; triton is not installed" in said
    assert "missing cuda: absent; this build holds no CUDA kernels: nvcc was not there" in said
    assert "ok      cpu: compiled kernels on AVX2, 3x3 convolutions by Winograd where it wins" in said


def test_winograd_turned_off_is_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extension, "missing", lambda: None)
    monkeypatch.setattr(_extension, "instruction_set", lambda: "AVX2")
    monkeypatch.setenv("GUIDE_FAST_WINOGRAD", "0")
    assert "3x3 convolutions not by Winograd (GUIDE_FAST_WINOGRAD)" in run("doctor", "--kernels").stdout


def test_on_a_gpu_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(_extension, "missing_cuda", lambda: None)
    monkeypatch.setattr(_triton, "missing", lambda: None)
    found = {it.name: it for it in kernel_checks.find_implementations()}
    assert found["triton"].reason is None and found["cuda"].reason is None
    assert "a card" in found["triton"].found and "a card" in found["cuda"].found


def test_measured_choices_are_printed(run: Any, cache: Path) -> None:
    assert "none yet" in run("doctor", "--kernels").stdout
    times = {"triton": 0.5, "dense": 0.25, "cuda": None}
    known = {"a card | modulated_conv2d | 1x512x64x64": {"impl": "dense", "ms": times}}
    for name, entry in known.items():
        _choice._store(_choice.default_path(), name, entry)
    _choice.forget()
    outcome = run("doctor", "--kernels")
    assert "1x512x64x64: dense (cuda failed, dense 0.250 ms, triton 0.500 ms)" in outcome.stdout
    assert str(cache) in outcome.stdout
    assert run("doctor", "--kernels", "--json").json["choices"] == known
