"""What a C++ program is told about the library, what Python says where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import contract
import pytest

from guide_fast import embedding
from guide_fast.errors import GuideFastError


def test_folders_hold_what_a_cpp_program_needs(repository: Path) -> None:
    contract.require_extension()
    assert (embedding.cmake_folder() / "guide_fast-config.cmake").is_file()
    assert embedding.library().is_file()
    headers = repository / "csrc" / "include"
    for header in headers.rglob("*.h"):
        built = embedding.include_folder() / header.relative_to(headers)
        assert built.read_text() == header.read_text(), f"{built} is stale: run `make native`"


@pytest.mark.parametrize("ask", [embedding.include_folder, embedding.cmake_folder, embedding.library])
def test_without_libraries_it_says_how_to_get_them(
    ask: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_PACKAGE", tmp_path)
    with pytest.raises(GuideFastError, match="make setup"):
        ask()


def test_native_module_needs_no_torch() -> None:
    contract.require_extension()
    code = "import sys, guide_fast._native as n, guide_fast.embedding; n.cuda; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("built", "said"), [([], "make setup"), (["cpython-35m", "cpython-36m"], "built for cpython-35m, cpython-36m and")]
)
def test_native_module_of_another_python_says_so(built: list[str], said: str, repository: Path, tmp_path: Path) -> None:
    package = tmp_path / "guide_fast"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_native.py").write_text((repository / "guide_fast" / "_native.py").read_text())
    for name in built:
        (package / f"_native.{name}-x86_64-linux-gnu.so").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import guide_fast._native"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "ImportError: guide_fast._native is" in done.stderr
    assert said in done.stderr.splitlines()[-1]
