"""Reads what the assembler made of a kernel: registers, local memory, shared memory, matrix instruction, code size."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

USAGE = re.compile(r"^\s*Function (\S+):\s*\n\s*(REG:.*)$", re.MULTILINE)
SECTION = re.compile(r"^\s*\.section\s+\.text\.([^,\s]+),")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
BITS = re.compile(r"\.(32|64|128|U8|S8|U16|S16)\b")
# SASS mnemonic -> how the table calls it, best first
MATRIX = {
    "HGMMA": "wgmma",
    "QGMMA": "wgmma",
    "UTCHMMA": "tcgen05",
    "UTCQMMA": "tcgen05",
    "HMMA": "mma.sync",
    "QMMA": "mma.sync",
    "DMMA": "mma.sync",
}


@cache
def tool(name: str) -> str | None:
    """cuobjdump or nvdisasm: those of Triton's wheel, else those on PATH."""
    spec = importlib.util.find_spec("triton")
    if spec is not None and spec.submodule_search_locations:
        beside = Path(next(iter(spec.submodule_search_locations))) / "backends" / "nvidia" / "bin" / name
        if beside.is_file():
            return str(beside)
    return shutil.which(name)


def resources(binary: Path) -> dict[str, dict[str, int]]:
    """Mangled kernel name -> registers, stack, static shared memory in bytes; of a cubin, or a library's first match.

    In a library every architecture holds a kernel of that name; the greatest figure of each kind is kept.
    """
    text = _run("cuobjdump", "-res-usage", str(binary))
    found: dict[str, dict[str, int]] = {}
    for name, fields in USAGE.findall(text):
        values = dict(field.split(":", 1) for field in fields.split() if ":" in field)
        row = {"registers": int(values["REG"]), "stack": int(values["STACK"]), "shared": int(values["SHARED"])}
        known = found.setdefault(name, row)
        found[name] = {key: max(known[key], row[key]) for key in row}
    return found


def disassembled(cubin: Path) -> dict[str, dict[str, Any]]:
    """Mangled kernel name -> bytes of code, bytes of local loads and stores, the matrix instruction or None."""
    return read_sass(_run("nvdisasm", "-c", str(cubin)))


def read_sass(text: str) -> dict[str, dict[str, Any]]:
    """The same from the text of `nvdisasm -c`."""
    found: dict[str, dict[str, Any]] = {}
    row: dict[str, Any] = {}
    for line in text.splitlines():
        if section := SECTION.match(line):
            row = found.setdefault(section[1], {"code_bytes": 0, "local_loads": 0, "local_stores": 0, "matrix": None})
        elif instruction := INSTRUCTION.search(line):
            address, mnemonic = instruction.groups()
            row["code_bytes"] = max(row["code_bytes"], int(address, 16) + 16)
            kind = mnemonic.split(".")[0]
            if kind in ("LDL", "STL"):
                row["local_loads" if kind == "LDL" else "local_stores"] += _width(mnemonic)
            elif kind in MATRIX:
                names = list(MATRIX.values())
                best = min(filter(None, (row["matrix"], MATRIX[kind])), key=names.index)
                row["matrix"] = best
    return found


def _width(mnemonic: str) -> int:
    bits = BITS.search(mnemonic)
    return int(bits[1].lstrip("US")) // 8 if bits else 4


def _run(name: str, *arguments: str) -> str:
    program = tool(name)
    if program is None:
        raise FileNotFoundError(f"{name} is neither in Triton's wheel nor on PATH; pip install triton")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
