"""What each layer policy forgets, keeps, costs: a table over seeds, resumed cell by cell.

Run it as `python -m guide_fast.bench.ablation [--seeds 0 1 2]` from the root of the repository; it needs the weights in
the cache. Every cell is a whole run of the default generator, judged on a small sample (`EVALUATE`), so that ten seeds
take about 20 minutes on two cores; `fd_pre` of so few images is biased upwards and compares within the table alone. A
run that is stopped goes on with the cells that its file lacks; cells of other settings are made anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from guide_fast.artifacts import write_bytes
from guide_fast.bench.record import RESULTS, provenance, quantiles
from guide_fast.config import Config, resolve_config
from guide_fast.pipeline import forget, load_generator

POLICIES: dict[str, dict[str, Any]] = {
    "auto": {},
    "all": {"ltu.layers": "all"},
    "coarse": {"ltu.layers": "coarse"},
    "fine": {"ltu.layers": "fine"},
    "budget=2M": {"ltu.layers": "budget=2M"},
    "*.convolution": {"ltu.layers": "*.convolution"},
    "all, rank=4": {"ltu.layers": "all", "ltu.rank": 4},
}
EVALUATE = {
    "evaluate.fd_images": 32,
    "evaluate.bystanders": 32,
    "evaluate.neighbours": 2,
    "evaluate.stranger_pairs": 200,
}
COLUMNS = ("forgotten", "retained", "fd_pre", "seconds", "steps", "delta_bytes", "delta_zlib_bytes")

Cell = dict[str, Any]
Run = Callable[[Config, int], Cell]


def main() -> int:
    """Run what is missing, print the table, store both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES), metavar="POLICY")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu" / "ablation.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = load_generator()
    result = fill(
        arguments.out,
        {name: POLICIES[name] for name in arguments.policies},
        arguments.seeds,
        lambda config, seed: measured(generator, config, seed),
        more=dict(item.split("=", 1) for item in arguments.set),
        say=lambda text: print(text, flush=True),
    )
    print(table(result))
    return 0


def measured(generator: Any, config: Config, seed: int) -> Cell:
    """One run: the numbers of COLUMNS with what decides about them."""
    done = forget(generator, seed=seed, config=config)
    packed = sum(len(zlib.compress(t.numpy().tobytes(), 1)) for t in done.delta.tensors.values())
    kept = ("forgotten", "retained", "fd_pre", "seconds", "steps", "stopped", "delta_bytes", "parameters_moved")
    cell = {name: done.metrics[name] for name in kept} | {"delta_zlib_bytes": packed}
    return cell | {"layers": len(done.metrics["layers"]), "stranger_mean": done.metrics["stranger_mean"]}


def fill(
    path: Path,
    policies: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    run: Run,
    *,
    more: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The result at `path` with the cells of all policies and seeds, each written as soon as it is there.

    A cell that is there is taken as it is when it was made with the same settings.
    """
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    cells: list[Cell] = []
    result: dict[str, Any] = {"provenance": provenance(), "evaluate": EVALUATE, "cells": cells}
    known = {(cell["policy"], cell["seed"]): cell for cell in before.get("cells", [])}
    for seed in seeds:
        for name, overrides in policies.items():
            config = resolve_config(None, {}, {**EVALUATE, **overrides, **(more or {})})
            settings = json.loads(json.dumps(config.to_dict()))
            cell = known.get((name, seed))
            if cell is None or cell["settings"] != settings:
                commit = {"commit": result["provenance"]["commit"], "settings": settings}
                cell = {"policy": name, "seed": seed} | run(config, seed) | commit
                say(f"{name}, seed {seed}: " + ", ".join(f"{column} {cell[column]:.4g}" for column in COLUMNS))
            cells.append(cell)
            _write(path, result, known)
    result["summary"] = summary(cells)
    _write(path, result, {})
    write_bytes(path.with_suffix(".md"), table(result).encode())
    return result


def summary(cells: Sequence[Cell]) -> dict[str, dict[str, dict[str, float]]]:
    """Policy -> column -> quantiles over its seeds."""
    names = dict.fromkeys(cell["policy"] for cell in cells)
    return {
        name: {c: quantiles([float(cell[c]) for cell in cells if cell["policy"] == name]) for c in COLUMNS}
        for name in names
    }


def table(result: Mapping[str, Any]) -> str:
    """Markdown: the median of each column, [p20 to p80] over seeds."""
    cells = result["cells"]
    seeds = sorted({cell["seed"] for cell in cells})
    strangers = quantiles([cell["stranger_mean"] for cell in cells])["median"]
    sample = result["evaluate"]
    lines = [
        f"Seeds {', '.join(map(str, seeds))}; {sample['evaluate.bystanders']} bystanders, "
        f"{sample['evaluate.fd_images']} images behind fd_pre, the person with {sample['evaluate.neighbours']} "
        f"neighbours; strangers score {strangers:.3f}; {result['provenance']['processor']}, "
        f"{result['provenance']['threads']} threads, commit {result['provenance']['commit']}.",
        "",
        "| policy | forgotten | retained | fd_pre | seconds | steps | delta, MB | zlib, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    digits = {"forgotten": 3, "retained": 3, "fd_pre": 2, "seconds": 1, "steps": 0}
    for name, row in result["summary"].items():
        shown = []
        for column in COLUMNS:
            scale = 1e-6 if column.endswith("bytes") else 1.0
            low, mid, high = (f"{row[column][q] * scale:.{digits.get(column, 1)}f}" for q in ("p20", "median", "p80"))
            shown.append(mid if low == high else f"{mid} [{low} to {high}]")
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _write(path: Path, result: Mapping[str, Any], known: Mapping[tuple[str, int], Cell]) -> None:
    """What is there now, with the cells of `known` that are still to be looked at."""
    there = {(cell["policy"], cell["seed"]) for cell in result["cells"]}
    rest = [cell for key, cell in known.items() if key not in there]
    content = {**result, "cells": [*result["cells"], *rest]}
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
