"""The native build's choices: compilers, interpreters, which earlier build may be gone on with."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import setuptools


@pytest.fixture
def build(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py, loaded without running it."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.chdir(repository)
    spec = importlib.util.spec_from_file_location("guide_fast_setup", repository / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("GUIDE_FAST_CUDA", "GUIDE_FAST_PYTHONS", "CUDACXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return module


def executable(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_nvcc_is_found_on_path_or_in_cuda_home(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert build._nvcc() is None
    nvcc = executable(tmp_path / "cuda" / "bin" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert build._nvcc() == str(nvcc)
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", str(nvcc.parent))
    assert build._nvcc() == str(nvcc)
    monkeypatch.setenv("GUIDE_FAST_CUDA", "OFF")
    assert build._nvcc() is None


def test_cuda_that_was_asked_for_is_not_left_out(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GUIDE_FAST_CUDA", "ON")
    with pytest.raises(SystemExit, match="CUDACXX or CUDA_HOME"):
        build._nvcc()


def test_editable_install_builds_for_its_own_python_alone(build: ModuleType) -> None:
    assert build._pythons(only_this=True) == [sys.executable]


def test_wheel_is_built_for_one_of_each_python_found(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "3.11.0": "3 11 .cpython-311-other.so True cpython",
        "3.11.1": "3 11 .cpython-311-other.so True cpython",
        "3.12.0": "3 12 .cpython-312-other.so False cpython",  # no headers
        "3.10.0": "3 10 .cpython-310-other.so True cpython",
        "pypy": "3 11 .pypy311-pp73.so True pypy",
        "shim": None,
    }
    for name, answer in answers.items():
        executable(tmp_path / "versions" / name / "bin" / "python3", f"echo {answer}" if answer else "exit 127")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert build._pythons(only_this=False) == [sys.executable, str(tmp_path / "versions/3.11.0/bin/python3")]


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 127", "does not start"), ("echo 3 9 .cpython-39.so True cpython", "cpython 3.9, Python.h: True")],
)
def test_named_python_that_cannot_be_built_for_is_an_error(
    build: ModuleType, script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = executable(tmp_path / "python", script)
    monkeypatch.setenv("GUIDE_FAST_PYTHONS", os.pathsep.join([sys.executable, str(python)]))
    with pytest.raises(SystemExit, match=said):
        build._pythons(only_this=False)


def test_build_of_another_checkout_is_thrown_away(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "BUILD", tmp_path / "native")
    build._forget_other_builds("here")
    kept = tmp_path / "native" / "object.o"
    kept.touch()
    build._forget_other_builds("here")
    assert kept.exists()
    build._forget_other_builds("elsewhere")
    assert not kept.exists()


def test_module_of_an_interpreter_no_longer_asked_for_goes(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, package = tmp_path / "stage", tmp_path / "package"
    (stage / "include").mkdir(parents=True)
    package.mkdir()
    for file in (stage / "_native.new.so", stage / "include" / "a.h", package / "_native.old.so", package / "a.py"):
        file.touch()
    monkeypatch.setattr(build, "STAGE", stage)
    build._replace(package)
    assert {str(path.relative_to(package)) for path in package.rglob("*")} == {
        "_native.new.so",
        "include",
        "include/a.h",
        "a.py",
    }
