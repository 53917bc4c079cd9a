"""Hashes what a kernel is compiled from: its file with everything of this repository that it includes."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def digest(file: Path) -> str:
    """Of the contents of `file`, of what it imports from guide_fast.kernels or includes, and of what those do."""
    files = sorted(python_closure(file) if file.suffix == ".py" else include_closure(file))
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def python_closure(file: Path) -> set[Path]:
    """`file` and the Triton modules it takes functions from, directly or not."""
    return _closure(file, _imported_triton)


def include_closure(file: Path) -> set[Path]:
    """`file` and the headers of this repository it includes, directly or not."""
    return _closure(file, _included)


def include_folders() -> list[Path]:
    """Where the native sources look for headers."""
    operations = (path for path in (ROOT / "kernels").iterdir() if path.is_dir() and path.name != "__pycache__")
    return [ROOT / "csrc" / "include", ROOT / "csrc" / "common", *sorted(operations)]


def _closure(file: Path, direct: object) -> set[Path]:
    found, waiting = set(), [file.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += direct(path)  # type: ignore[operator]
    return found


def _imported_triton(file: Path) -> list[Path]:
    """Modules named *triton* only: the rest of the package does not reach the compiler."""
    paths = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("guide_fast.kernels"):
            base = ROOT.joinpath("kernels", *node.module.split(".")[2:])
            paths += [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]
    return [path for path in paths if path.is_file() and "triton" in path.stem and path.stem != "_triton"]


def _included(file: Path) -> list[Path]:
    paths = []
    for name in INCLUDE.findall(file.read_text(encoding="utf-8")):
        candidates = [folder / name for folder in (file.parent, *include_folders())]
        paths += [path.resolve() for path in candidates if path.is_file()][:1]
    return paths
