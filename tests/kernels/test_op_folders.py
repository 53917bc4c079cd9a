"""Every operation has all its pieces, each where its stem says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layout import tracked

# What an operation consists of, {op} being its name.
PIECES = (
    "kernels/{op}/README.md",
    "kernels/{op}/__init__.py",
    "kernels/{op}/{op}.py",
    "kernels/{op}/{op}_reference.py",
    "kernels/{op}/{op}_triton.py",
    "kernels/{op}/{op}.cuh",
    "kernels/{op}/{op}.cu",
    "csrc/include/guide_fast/{op}.h",
    "csrc/torch/{op}.cpp",
    "csrc/python/{op}.cpp",
    "csrc/without_cuda/{op}.cpp",
    "tests/kernels/{op}/test_{op}.py",
)
# What some files say about it.
MENTIONS = {
    "kernels/__init__.py": "from guide_fast.kernels.{op}.{op} import ",
    "csrc/include/guide_fast.h": '#include "guide_fast/{op}.h"',
}


def operations(files: set[Path]) -> list[str]:
    """The folders under kernels/ that hold code."""
    return sorted({file.parts[1] for file in files if file.parts[0] == "kernels" and len(file.parts) > 2})


def missing_pieces(root: Path, op: str, files: set[Path]) -> Iterator[str]:
    """What `op` lacks of the above, its table of Triton kernels to compile included."""
    for piece in PIECES:
        if Path(piece.format(op=op)) not in files:
            yield piece.format(op=op)
    for file, said in MENTIONS.items():
        if said.format(op=op) not in _text(root, file):
            yield f"{said.format(op=op)} in {file}"
    triton = f"kernels/{op}/{op}_triton.py"
    if "COMPILE" not in assigned(_text(root, triton)):
        yield f"COMPILE in {triton}"


def assigned(source: str) -> set[str]:
    """Names that a module assigns or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _text(root: Path, file: str) -> str:
    return (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""


def _write_operation(root: Path, op: str) -> set[Path]:
    """A whole operation of empty pieces."""
    files = [Path(piece.format(op=op)) for piece in PIECES]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    (root / f"kernels/{op}/{op}_triton.py").write_text("COMPILE: dict = {}\n")
    for file, said in MENTIONS.items():
        (root / file).write_text(said.format(op=op))
    return set(files)


REPOSITORY = Path(__file__).resolve().parents[2]
FILES = set(tracked(REPOSITORY))


@pytest.mark.parametrize("op", operations(FILES))
def test_operation_is_complete(op: str) -> None:
    lacking = list(missing_pieces(REPOSITORY, op, FILES))
    assert not lacking, f"{op} lacks " + ", ".join(lacking)


def test_there_are_operations() -> None:
    assert "bias_act" in operations(FILES)


def test_whole_operation_is_accepted(tmp_path: Path) -> None:
    assert list(missing_pieces(tmp_path, "haar", _write_operation(tmp_path, "haar"))) == []


@pytest.mark.parametrize("piece", PIECES)
def test_missing_piece_is_named(piece: str, tmp_path: Path) -> None:
    lost = Path(piece.format(op="haar"))
    files = _write_operation(tmp_path, "haar") - {lost}
    assert list(missing_pieces(tmp_path, "haar", files)) == [str(lost)]


@pytest.mark.parametrize("file", [*MENTIONS, "kernels/haar/haar_triton.py"])
def test_missing_mention_is_named(file: str, tmp_path: Path) -> None:
    files = _write_operation(tmp_path, "haar")
    (tmp_path / file).write_text("")
    (lacking,) = missing_pieces(tmp_path, "haar", files)
    assert lacking.endswith(file)
