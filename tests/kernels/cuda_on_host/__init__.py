"""Runs a .cu file on the CPU: what a kernel computes is tested where there is no GPU.

The threads of a block are fibers that change at barriers and shuffles, dynamic shared memory starts as NaN. It shows
wrong indices, sums, masks, missing initialisation; it shows neither races between barriers nor alignment faults.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

from torch import Tensor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LAUNCH = re.compile(r"([\w:]+(?:<[^;{}]*?>)?)<<<(.*?), (.*?), (.*?), [^,]*?>>>\((.*?)\)(?=[;)])", re.DOTALL)
DYNAMIC = re.compile(r"extern __shared__ ([\w: ]+?)(?: __align__\(\d+\))? (\w+)\[\];")


def translate(source: str) -> str:
    """CUDA's launch syntax, dynamic shared memory -> C++."""
    source = LAUNCH.sub(r"host_cuda::launch(\2, \3, \4, [&] { \1(\5); })", source)
    return DYNAMIC.sub(r"\1* \2 = static_cast<\1*>(host_cuda::dynamic_shared());", source)


def build(*ops: str, folder: Path, code: str) -> ctypes.CDLL:
    """The library of the .cu files of kernels/<op> for the host, with the C functions in `code`."""
    sources = []
    for part in (ROOT / "csrc" / "common", *(ROOT / "kernels" / op for op in ops)):
        for file in sorted(part.glob("*.cu*")):
            to = folder / (f"{file.name}.cpp" if file.suffix == ".cu" else file.name)
            to.write_text(translate(file.read_text(encoding="utf-8")), encoding="utf-8")
            sources += [to] if file.suffix == ".cu" else []
    fail = 'extern "C" gf_status gf_fail(gf_status status, const char*, ...) { return status; }\n'
    (folder / "test.cpp").write_text(f'#include "guide_fast.h"\n{fail}{code}\n', encoding="utf-8")
    folders = [folder, HERE, ROOT / "csrc" / "common", ROOT / "csrc" / "include", *(ROOT / "kernels").iterdir()]
    includes = [f"-I{path}" for path in folders if path.is_dir()]
    command = ["c++", "-std=c++20", "-O1", "-fPIC", "-shared", "-include", "cuda_runtime.h", *includes]
    sources.append(ROOT / "csrc" / "common" / "arguments.cpp")
    command += [*map(str, sources), str(folder / "test.cpp"), "-o", str(folder / "on_host.so")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "on_host.so"))


def pointer(t: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor, null for None."""
    return ctypes.c_void_p(None if t is None else t.data_ptr())
