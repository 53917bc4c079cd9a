"""What the compilers make of every kernel: registers, local memory, shared memory, matrix instruction, code size.

`python -m guide_fast.bench.compile_report` needs no GPU. It compiles what has changed since the committed table
(`--all`: everything), then writes bench/results/compile_report.json with a table beside it; 1 when a kernel breaks a
rule.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from guide_fast.bench import compile_cuda
from guide_fast.bench.record import RESULTS
from guide_fast.bench.sources import ROOT, digest

TABLE = RESULTS / "compile_report.json"
DTYPES = ("fp32", "fp16", "bf16")
ARCHS = (80, 90, 100, 120)
HALVES = ("fp16", "bf16")
KEY = ("file", "entry", "kernel", "dtype", "arch")
INTERPRETER = "TRITON_INTERPRET"

Row = dict[str, Any]


def main() -> int:
    """Bring the table up to date, print what breaks a rule."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="compile what has not changed, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    known = {} if arguments.all or not TABLE.is_file() else read()
    sources = {relative(file): digest(file) for file in files()}
    stale = [name for name, value in sources.items() if known.get("sources", {}).get(name) != value]
    rows = [row for row in known.get("rows", []) if row["file"] in sources and row["file"] not in stale]
    if (cuda := [name for name in stale if name.endswith(".cu")]) and (reason := compile_cuda.missing()):
        sys.exit(f"{reason}: {', '.join(cuda)} cannot be compiled, the table stays as it is")
    for i, name in enumerate(stale, 1):
        print(f"{i} of {len(stale)}: {name}", flush=True)
        rows += rows_of(ROOT / name, arguments.jobs)
        rows.sort(key=lambda row: tuple(str(row.get(key, "")) for key in KEY))
        # after each file: what is made stays when the rest is stopped
        done = {name: value for name, value in sources.items() if name not in stale[i:]}
        write({"tools": tools(), "sources": done, "rows": rows})
    broken = list(problems(rows))
    print("\n".join(broken) if broken else f"{len(rows)} kernels, none breaks a rule", TABLE, sep="\n")
    return bool(broken)


def rows_of(file: Path, jobs: int) -> list[Row]:
    """Rows of all kernels in one file, for all that the project supports."""
    if file.suffix == ".cu":
        return cuda_rows([file], compile_cuda.ARCHS, jobs)
    return triton_rows([file], DTYPES, ARCHS, jobs)


def files() -> list[Path]:
    """Every Triton module with a COMPILE table, every .cu file."""
    triton = [path for path in ROOT.glob("kernels/*/*_triton.py") if "\nCOMPILE" in path.read_text(encoding="utf-8")]
    return sorted([*triton, *ROOT.glob("kernels/*/*.cu")])


def relative(file: Path) -> str:
    """`file` as the table calls it."""
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name


def triton_rows(modules: Sequence[Path], dtypes: Sequence[str], archs: Sequence[int], jobs: int) -> list[Row]:
    """Rows of all COMPILE entries, made by `jobs` processes in which triton compiles instead of interpreting."""
    environment = {key: value for key, value in os.environ.items() if key != INTERPRETER}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    work = {"files": [str(file) for file in modules], "dtypes": list(dtypes), "archs": list(archs), "shares": jobs}

    def run(share: int) -> list[Row]:
        done = subprocess.run(
            [sys.executable, "-m", "guide_fast.bench.compile_triton"],
            input=json.dumps(work | {"share": share}),
            text=True,
            capture_output=True,
            env=environment,
            cwd=ROOT,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode:
            rows.append({"file": "", "entry": "", "error": done.stderr[-2000:]})
        return rows

    with ThreadPoolExecutor(jobs) as pool:
        rows = [row for share in pool.map(run, range(jobs if modules else 0)) for row in share]
    return [row | {"file": relative(Path(row["file"]))} for row in rows]


def cuda_rows(sources: Sequence[Path], archs: Sequence[str], jobs: int) -> list[Row]:
    """Rows of all kernels in .cu files."""
    work = [(file, arch) for file in sources for arch in archs]
    with ThreadPoolExecutor(jobs) as pool:
        compiled = pool.map(lambda item: compile_cuda.compile_file(*item), work)
    return [{"file": relative(file)} | row for (file, _), rows in zip(work, compiled, strict=True) for row in rows]


def problems(rows: Iterable[Row]) -> Iterator[str]:
    """A sentence for every row that breaks a rule: it compiles, stays in registers, uses the matrix unit it has."""
    for row in rows:
        where = " ".join(str(row[key]) for key in KEY if row.get(key))
        if "error" in row:
            yield f"{where} does not compile: {row['error']}"
            continue
        if row["local_loads"] or row["local_stores"]:
            local = f"{row['local_stores']} bytes of stores, {row['local_loads']} of loads"
            yield f"{where} spills: {local} in local memory, {row['registers']} registers"
        if row.get("dot") and row["arch"] == 90 and row["dtype"] in HALVES and row["matrix"] != "wgmma":
            yield f"{where} multiplies matrices by {row['matrix'] or 'scalar instructions'}, sm_90 has wgmma"


def stale_sources(table: dict[str, Any]) -> list[str]:
    """Files whose rows are missing, outdated or of files that are gone."""
    now = {relative(file): digest(file) for file in files()}
    return sorted(name for name in now.keys() | table["sources"].keys() if now.get(name) != table["sources"].get(name))


def read() -> dict[str, Any]:
    """The committed table."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def write(table: dict[str, Any]) -> None:
    """One row a line, so that a diff shows which kernel changed; the readable form beside it."""
    head = json.dumps({key: table[key] for key in ("tools", "sources")}, indent=1, sort_keys=True)
    rows = ",\n".join("  " + json.dumps(row, sort_keys=True) for row in table["rows"])
    TABLE.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")
    TABLE.with_suffix(".md").write_text(markdown(table), encoding="utf-8")


def markdown(table: dict[str, Any]) -> str:
    """One line per kernel, dtype: the figures of each architecture side by side where they differ."""
    lines = ["# What the compilers make of every kernel", ""]
    by = ", ".join(version for _, version in sorted(table["tools"].items()))
    lines += [f"Made without a GPU by `python -m guide_fast.bench.compile_report`: {by}.", ""]
    lines += ["`dot`: multiplies matrices. Columns with several numbers: one for each architecture, in its order.", ""]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in table["rows"]:
        groups.setdefault(tuple(str(row.get(key, "")) for key in ("file", "entry", "kernel", "dtype")), []).append(row)
    last = ""
    for (file, entry, kernel, dtype), rows in groups.items():
        if file != last:
            lines += ["", f"## {file}", "", *_header()]
            last = file
        rows = sorted(
            (row for row in rows if "error" not in row), key=lambda row: int(re.sub(r"\D", "", str(row["arch"])))
        )
        if not rows:
            lines.append(f"| {entry} {kernel} | {dtype} | does not compile |")
            continue
        cells = [_cell(rows, key) for key in ("arch", "registers", "shared")]
        local = _cell([{"local": row["local_loads"] + row["local_stores"]} for row in rows], "local")
        name = f"{entry} {dtype}".strip() or f"`{kernel}`"
        cells += [local, _cell(rows, "matrix"), _cell(rows, "code_bytes")]
        lines.append(f"| {name}{' (dot)' if rows[0].get('dot') else ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _generation(row: Row) -> int:
    return int(re.sub(r"\D", "", str(row["arch"])))


def _header() -> list[str]:
    names = ("kernel", "sm", "registers", "shared bytes", "local bytes", "matrix unit", "code bytes")
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _cell(rows: list[Row], key: str) -> str:
    values = [str(row[key]) if row[key] is not None else "-" for row in rows]
    return values[0] if len(set(values)) == 1 else " ".join(values)


def tools() -> dict[str, str]:
    """Which compilers made the table."""
    import triton

    found = {"triton": f"Triton {triton.__version__}"}
    if compile_cuda.missing() is None:
        version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
        found["nvcc"] = f"nvcc {version.split('release ')[1].split(',')[0]}"
    return found


if __name__ == "__main__":
    sys.exit(main())
