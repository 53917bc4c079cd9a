"""The layout that DESIGN and CONTRIBUTING describe stays true of what is in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LONGEST_FILE = 400
STAGES = ("align", "invert", "target", "ltu", "evaluate", "export")
# What each part of guide_fast may import from guide_fast besides itself.
MAY_IMPORT = {
    stage: {
        "artifacts",
        "config",
        "derived",
        "errors",
        "models",
        "kernels",
        "progress",
        "randomness",
        "resumption",
        "tensor_files",
    }
    for stage in STAGES
} | {
    "models": {"artifacts", "assets", "brought", "config", "derived", "errors", "kernels", "progress"},
    "serve": {"artifacts", "assets", "deltas", "errors", "export", "models", "pipeline"},
    "kernels": {"errors"},
    "errors": set(),
}
CODE = {".py", ".pyi", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".sh", ".cmake"}
TEXT = CODE | {".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".cfg", ""}
BUILT = {"out", "dist", ".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", "__pycache__"}
UNFINISHED = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")
LOCAL_PATH = re.compile(r"(?<![\w.~}$-])/(?:work|tmp|root|home)(?=/|\b(?!-))")

Rule = Callable[[Path, list[Path]], Iterator[str]]


def tracked(root: Path) -> list[Path]:
    """The files that git has or would add, relative to `root`; in an export without git, all that is not built."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = {Path(name) for name in listing.stdout.decode().split("\0") if name}
    else:
        names = {file.relative_to(root) for file in root.rglob("*") if not BUILT & {*file.relative_to(root).parts}}
    return sorted(name for name in names if (root / name).is_file())


def python(files: list[Path], *under: str) -> Iterator[Path]:
    return (file for file in files if file.suffix == ".py" and (not under or file.parts[0] in under))


def tree(root: Path, file: Path) -> ast.Module:
    return ast.parse((root / file).read_text(encoding="utf-8"))


def text(root: Path, file: Path) -> str:
    return (root / file).read_text(encoding="utf-8")


def files_are_short(root: Path, files: list[Path]) -> Iterator[str]:
    for file in files:
        if file.suffix in CODE and (count := len(text(root, file).splitlines())) > LONGEST_FILE:
            yield f"{file} has {count} lines, {LONGEST_FILE} are allowed"


def docstrings_say_one_job(root: Path, files: list[Path]) -> Iterator[str]:
    for file in python(files):
        module = tree(root, file)
        said = ast.get_docstring(module)
        if said is None:
            if module.body:
                yield f"{file} has no docstring"
        elif file.parts[0] != "tests" and " and " in re.split(r"\.\s|\n\n", said)[0].replace("\n", " "):
            yield f"{file} says two jobs: {said.splitlines()[0]}"


def names_say_something(root: Path, files: list[Path]) -> Iterator[str]:
    for file in files:
        for part in (*file.parts[:-1], file.stem):
            if part in ("utils", "util", "misc", "helpers", "helper", "common_utils"):
                yield f"{file} is called {part!r}, which says nothing"


def imported_parts(module: ast.Module, package: tuple[str, ...]) -> set[str]:
    """The X of every `guide_fast.X` that a module of `package` imports, wherever in the file it does."""
    names = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            names += [[*base, alias.name] for alias in node.names]
    return {name[1] for name in names if name[0] == "guide_fast" and len(name) > 1}


def parts_import_what_they_may(root: Path, files: list[Path]) -> Iterator[str]:
    for file in python(files, "guide_fast", "kernels"):
        where = file if file.parts[0] == "guide_fast" else Path("guide_fast") / file
        part = where.parts[1].removesuffix(".py")
        if part in MAY_IMPORT:
            found = imported_parts(tree(root, file), where.parts[:-1])
            for other in sorted(found - MAY_IMPORT[part] - {part}):
                yield f"{file} imports guide_fast.{other}; {part} may import {', '.join(sorted(MAY_IMPORT[part]))}"


def has_behaviour(module: ast.Module) -> bool:
    """Whether a function in it does anything; a protocol, a table of constants or a re-export has none."""
    functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    constant = (ast.Expr, ast.Pass)  # a docstring, `...`
    return any(not all(isinstance(step, constant) for step in function.body) for function in functions)


def modules_have_tests(root: Path, files: list[Path]) -> Iterator[str]:
    tests = {file.stem for file in python(files, "tests")}
    for file in python(files, "guide_fast", "kernels"):
        # a private module is tested through the module that uses it; the command line has its own tests
        if file.stem.startswith("_") or file.parts[:2] == ("guide_fast", "cli"):
            continue
        if file.parts[0] == "kernels" and f"test_{file.parts[1]}" in tests:
            continue  # one test of an operation holds all its implementations against each other
        if has_behaviour(tree(root, file)) and f"test_{file.stem}" not in tests:
            yield f"{file} has no test_{file.stem}.py under tests/"


def library_is_silent(root: Path, files: list[Path]) -> Iterator[str]:
    for file in python(files, "guide_fast", "kernels"):
        if file.parts[1] in ("cli", "cli.py"):
            continue
        for node in ast.walk(tree(root, file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"{file}:{node.lineno} prints"


def picture_is_true(root: Path, files: list[Path]) -> Iterator[str]:
    """CONTRIBUTING names only what is there, and every folder that is there."""
    picture = Path("CONTRIBUTING.md")
    if picture not in files:
        return
    cells = [line.split("|")[1] for line in text(root, picture).splitlines() if line.startswith("| `")]
    named = [Path(name) for cell in cells for name in re.findall(r"`([^`<]+)[^`]*`", cell)]
    base = Path()
    for name in named:  # `guide_fast/artifacts.py`, `config.py`: the second lies beside the first
        where = name if len(name.parts) > 1 or (root / name).exists() else base / name
        base = where.parent
        if not (root / where).exists():
            yield f"{picture} names {where}, which is not there"
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and not file.parts[0].startswith(".")}
    for folder in sorted(folders - {name.parts[0] for name in named}):
        yield f"{picture} does not name the folder {folder}"


def nothing_is_left_for_later(root: Path, files: list[Path]) -> Iterator[str]:
    for file in files:
        if file.suffix in CODE or file.name in ("Makefile", "run"):
            for number, line in enumerate(text(root, file).splitlines(), 1):
                if UNFINISHED.search(line):
                    yield f"{file}:{number} is unfinished: {line.strip()}"


def paths_are_passed_in(root: Path, files: list[Path]) -> Iterator[str]:
    for file in files:
        if file.suffix in TEXT:
            for number, line in enumerate(text(root, file).splitlines(), 1):
                if LOCAL_PATH.search(line):
                    yield f"{file}:{number} names a path of one machine: {line.strip()}"


# Each rule with a file that breaks it: a rule that cannot fail proves nothing.
RULES: list[tuple[Rule, str, str]] = [
    (files_are_short, "guide_fast/long.py", '"""Long."""\n' + "x = 1\n" * LONGEST_FILE),
    (docstrings_say_one_job, "guide_fast/mute.py", "x = 1\n"),
    (docstrings_say_one_job, "guide_fast/two.py", '"""Reads photos and\nwrites photos."""\n'),
    (names_say_something, "guide_fast/utils.py", '"""Odds."""\n'),
    (names_say_something, "guide_fast/helpers/a.py", '"""Ends."""\n'),
    (parts_import_what_they_may, "guide_fast/ltu/a.py", '"""A."""\nfrom guide_fast.align import face\n'),
    (parts_import_what_they_may, "guide_fast/ltu/b.py", '"""B."""\ndef f():\n    from guide_fast import assets\n'),
    (parts_import_what_they_may, "guide_fast/ltu/c.py", '"""C."""\nfrom ..invert import encoder\n'),
    (parts_import_what_they_may, "guide_fast/export.py", '"""D."""\nimport guide_fast.pipeline as p\n'),
    (parts_import_what_they_may, "guide_fast/serve/a.py", '"""F."""\nfrom guide_fast import evaluate\n'),
    (parts_import_what_they_may, "kernels/haar/haar.py", '"""E."""\nfrom guide_fast.models import generator\n'),
    (modules_have_tests, "guide_fast/models/a.py", '"""A."""\ndef f():\n    return 1\n'),
    (modules_have_tests, "kernels/haar/haar_triton.py", '"""A."""\ndef f():\n    return 1\n'),
    (library_is_silent, "guide_fast/loud.py", '"""Loud."""\nprint("loud")\n'),
    (picture_is_true, "CONTRIBUTING.md", "| `gone.py` | what was here |\n"),
    (nothing_is_left_for_later, "guide_fast/later.py", f'"""Later."""\n# {"TO" + "DO"} later\n'),
    (paths_are_passed_in, "README.md", f"run it in {'/' + 'work'}/main\n"),
    (paths_are_passed_in, "Makefile", f"X := {'/' + 'tmp'}\n"),
]


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _, _ in RULES), ids=lambda rule: rule.__name__)
def test_repository_keeps_the_rule(rule: Rule, repository: Path) -> None:
    broken = list(rule(repository, tracked(repository)))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("rule", "file", "content"), RULES)
def test_rule_can_fail(rule: Rule, file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content, encoding="utf-8")
    assert len(list(rule(tmp_path, [Path(file)]))) == 1


@pytest.mark.parametrize("with_git", [True, False])
def test_built_files_are_not_judged(tmp_path: Path, with_git: bool) -> None:
    for file in ("guide_fast/a.py", "out/b.py", ".venv/c.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    if with_git:
        (tmp_path / ".gitignore").write_text(".venv/\nout/\n.gitignore\n")
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert tracked(tmp_path) == [Path("guide_fast/a.py")]


def test_rules_accept_a_good_module(tmp_path: Path) -> None:
    files = {
        "guide_fast/ltu/loss.py": '"""Weigh the terms."""\nfrom guide_fast.models import frozen\n'
        "from . import schedule\ndef weigh():\n    return frozen\n",
        "guide_fast/ltu/__init__.py": "",
        "guide_fast/cli/main.py": '"""Say it."""\nprint("said")\n',
        "guide_fast/models/protocol.py": '"""Say what a generator is."""\ndef mapping(z):\n    ...\n',
        "kernels/haar/haar_triton.py": '"""Run on Triton."""\ndef f():\n    return 1\n',
        "tests/kernels/haar/test_haar.py": '"""haar."""\n',
        "tests/ltu/test_loss.py": '"""Weights of the loss and its terms."""\n',
        "README.md": "guide-fast forget photo.png --out out/a; see tests/ltu, ~/home/x, shared/work/x\n",
    }
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content, encoding="utf-8")
    for rule in dict.fromkeys(rule for rule, _, _ in RULES):
        assert list(rule(tmp_path, [Path(file) for file in files])) == []
