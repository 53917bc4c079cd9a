"""The wheel: what it holds, that it runs without compilers, on every Python it was built for (`make wheel-check`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("GUIDE_FAST_WHEEL" not in os.environ, reason="make wheel-check builds the wheel first")
SYSTEM = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
NEEDS = {
    "libguide_fast.so": SYSTEM - {"libstdc++.so.6"},  # linked in
    "libguide_fast_torch.so": SYSTEM | {"libguide_fast.so", "libtorch.so", "libtorch_cpu.so", "libc10.so"},
    "_native": SYSTEM | {"libguide_fast.so"},
}
OLDEST_GLIBC = (2, 34)  # what a Debian 12 compiler builds for: Ubuntu 22.04, RHEL 9, Debian 12

# What a program does first with the package: an operation through each of its doors, each against plain arithmetic.
USE = """
import os, shutil, sys
from pathlib import Path

assert shutil.which("c++") is None and shutil.which("cc") is None, os.environ["PATH"]
before = {path for path in Path(os.environ["HOME"]).rglob("*")}
import numpy, torch
from guide_fast import _native, embedding
from guide_fast.kernels import _extension, bias_act

assert _extension.missing() is None, _extension.missing()
x = torch.linspace(-2, 2, 24).reshape(1, 2, 3, 4).requires_grad_()
y = bias_act(x, torch.ones(2), impl="cpu", gain=2.0)
y.sum().backward()
wanted = torch.where(x + 1 < 0, (x + 1) * 0.2, x + 1) * 2
assert torch.allclose(y, wanted), (y, wanted)
assert torch.allclose(x.grad, torch.where(x + 1 < 0, 0.4, 2.0))
on_arrays = _native.bias_act(x.detach().numpy(), numpy.ones(2, numpy.float32), gain=2.0)
assert numpy.allclose(on_arrays, wanted.detach().numpy())
assert (embedding.include_folder() / "guide_fast.h").is_file()
assert "site-packages" in str(embedding.cmake_folder()), embedding.cmake_folder()
assert {path for path in Path(os.environ["HOME"]).rglob("*")} == before, "something was built at first use"
print(torch.__version__, _extension.instruction_set(), _extension.missing_cuda())
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    return Path(os.environ["GUIDE_FAST_WHEEL"])


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_is_for_every_python_from_3_11(wheel: Path) -> None:
    assert re.fullmatch(r"guide_fast-[\d.]+-cp311-abi3-linux_\w+\.whl", wheel.name)


def test_wheel_holds_libraries_headers_and_every_kernel(unpacked: Path, repository: Path) -> None:
    package = unpacked / "guide_fast"
    for name in ("libguide_fast.so", "libguide_fast_torch.so", "cmake/guide_fast-config.cmake", "py.typed"):
        assert (package / name).is_file(), name
    headers = repository / "csrc" / "include"
    for header in headers.rglob("*.h"):
        assert (package / "include" / header.relative_to(headers)).is_file(), header
    for file in (*(repository / "kernels").rglob("*.py"), *(repository / "guide_fast").rglob("*.py")):
        where = Path("guide_fast") / file.relative_to(repository)
        where = where if file.is_relative_to(repository / "kernels") else file.relative_to(repository)
        assert (unpacked / where).is_file(), where
    for file in ((repository / "bench").rglob("*.py"), (repository / "bench" / "benchmarks").glob("*.toml")):
        for part in file:
            assert (package / part.relative_to(repository)).is_file(), part
    assert not list(unpacked.rglob("*.cpp")) and not list(unpacked.rglob("*.cu"))


def test_libraries_need_only_what_every_machine_has(unpacked: Path) -> None:
    libraries = list((unpacked / "guide_fast").glob("*.so"))
    assert len(libraries) >= 3
    for library in libraries:
        said = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", said))
        assert needed <= NEEDS[library.name.split(".")[0] if "_native" in library.name else library.name], library.name
        assert re.findall(r"(?:RPATH|RUNPATH).*\[(.*)\]", said) == ["$ORIGIN"]
        said = subprocess.run(["readelf", "-VW", library], capture_output=True, text=True, check=True).stdout
        versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", said)}
        assert max(versions) <= OLDEST_GLIBC, f"{library.name} needs glibc {max(versions)}"


def test_library_exports_its_c_interface_alone(unpacked: Path) -> None:
    said = subprocess.run(
        ["nm", "-D", "--defined-only", unpacked / "guide_fast" / "libguide_fast.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exported = {line.split()[-1] for line in said.splitlines()}
    assert "gf_bias_act_cpu" in exported
    assert {name for name in exported if not name.startswith("gf_")} == set()


@pytest.mark.parametrize("nvcc", [False, True])
def test_installed_wheel_runs_without_a_compiler(nvcc: bool, tmp_path: Path) -> None:
    python = Path(os.environ["GUIDE_FAST_WHEEL_PYTHON"]).absolute()
    path = tmp_path / "bin"
    path.mkdir()
    if nvcc:
        (path / "nvcc").symlink_to(shutil.which("nvcc") or pytest.skip("no nvcc here"))
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": str(path), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-c", USE], env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_native_module_starts_on_every_python_it_was_built_for(unpacked: Path) -> None:
    built = {path.name.split("-")[1] for path in (unpacked / "guide_fast").glob("_native.cpython-*.so")}
    assert f"{sys.version_info.major}{sys.version_info.minor}" in built
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for tag in sorted(built):
        name = f"python{tag[0]}.{tag[1:]}"
        pythons = [*pyenv.glob(f"versions/*/bin/{name}"), *filter(None, [shutil.which(name)])]
        code = "import guide_fast._native as n; assert n.instruction_set() in (0, 3, 4); assert callable(n.bias_act)"
        done = subprocess.run(
            [str(next(iter(pythons), sys.executable)), "-c", code],
            env={"PATH": ""},
            cwd=unpacked,  # where -c looks first
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
