"""Compiles the CUDA launchers for every architecture of the wheel, one row per kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from guide_fast.bench import machine_code
from guide_fast.bench.sources import include_folders

ARCHS = ("80", "86", "89", "90a", "120")  # the wheel carries 120 as PTX; here it is assembled, for the figures


def missing() -> str | None:
    """Why no .cu can be compiled here, or None."""
    return None if shutil.which("nvcc") else "nvcc is not on PATH"


def compile_file(file: Path, arch: str) -> list[dict[str, Any]]:
    """Rows of the kernels in `file` on one architecture; a compiler's complaint becomes an error row."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        includes = [f"-I{path}" for path in include_folders()]
        command = ["nvcc", "-std=c++17", "-O3", "-cubin", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
        done = subprocess.run([*command, *includes, str(file), "-o", str(cubin)], capture_output=True, text=True)
        if done.returncode:
            return [{"kernel": "", "arch": arch, "error": done.stderr[-2000:]}]
        usage, code = machine_code.resources(cubin), machine_code.disassembled(cubin)
        names = dict(zip(usage, readable(list(usage)), strict=True))
    return [
        {"kernel": names[name], "arch": arch} | usage[name] | code[name]
        for name in sorted(usage, key=names.__getitem__)
    ]


def readable(mangled: list[str]) -> list[str]:
    """`forward<__half>` for what the compiler calls a kernel; without c++filt the name as it is."""
    program = shutil.which("cu++filt") or shutil.which("c++filt")
    if program is None:
        return mangled
    text = subprocess.run([program], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    return [_short(line) for line in text.splitlines()]


def _short(name: str) -> str:
    """Without namespaces, return type, parameters."""
    name = re.sub(r"\(anonymous namespace\)::|_INTERNAL_\w+::|<unnamed>::|\bgf::", "", name).removeprefix("void ")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name[i:].startswith("(anonymous"):
            return name[:i]
    return name
