"""Runs a .cu file on the CPU: what a kernel computes is tested where there is no GPU.

The threads of a block are fibers that change at barriers and shuffles, dynamic shared memory starts as NaN. It shows
wrong indices, sums, masks, missing initialisation; it shows neither races between barriers nor alignment faults.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LAUNCH = re.compile(r"([\w:]+(?:<[^;{}]*?>)?)<<<(.*?), (.*?), (.*?), [^,]*?>>>\((.*?)\)(?=[;)])", re.DOTALL)
DYNAMIC = re.compile(r"extern __shared__ ([\w: ]+?)(?: __align__\(\d+\))? (\w+)\[\];")


def translate(source: str) -> str:
    """CUDA's launch syntax, dynamic shared memory -> C++."""
    source = LAUNCH.sub(r"host_cuda::launch(\2, \3, \4, [&] { \1(\5); })", source)
    return DYNAMIC.sub(r"\1* \2 = static_cast<\1*>(host_cuda::dynamic_shared());", source)


def build(op: str, folder: Path, *, code: str = "") -> ctypes.CDLL:
    """The library of kernels/<op>/<op>.cu for the host, `code` of the test appended."""
    source, library = folder / f"{op}.cpp", folder / f"{op}.so"
    text = (ROOT / "kernels" / op / f"{op}.cu").read_text(encoding="utf-8")
    source.write_text(translate(text) + "\n" + code, encoding="utf-8")
    fail = 'extern "C" gf_status gf_fail(gf_status status, const char*, ...) { return status; }\n'
    (folder / "fail.cpp").write_text(f'#include "guide_fast/status.h"\n{fail}', encoding="utf-8")
    folders = [HERE, ROOT / "csrc" / "common", ROOT / "csrc" / "include", *sorted((ROOT / "kernels").iterdir())]
    includes = [f"-I{path}" for path in folders if path.is_dir()]
    command = ["c++", "-std=c++20", "-O1", "-fPIC", "-shared", "-include", "cuda_runtime.h", *includes]
    command += [str(source), str(folder / "fail.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))
