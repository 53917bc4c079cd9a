"""Forgetting ten people of the default generator on a CPU: quality, seconds, memory.

Run it as `python -m guide_fast.bench.forget_cpu` from the root of the repository; it needs the weights in the cache.
"""

from __future__ import annotations

import argparse
import sys

import torch

from guide_fast.bench.record import provenance, quantiles, write
from guide_fast.config import resolve_config
from guide_fast.pipeline import forget, load_generator

REQUESTED_RETAINED = 0.95
REQUESTED_SECONDS = 90.0
REQUESTED_BYTES = 6 * 2**30


def main() -> int:
    """Forget every seed, print a table, store the numbers; 1 when a requested bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--name", default="forget_cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = resolve_config(None, {}, dict(item.split("=", 1) for item in arguments.set))
    generator = load_generator()
    rows = []
    for seed in arguments.seeds:
        metrics = forget(generator, seed=seed, config=config).metrics
        limit = metrics["stranger_mean"] + 0.5 * metrics["stranger_std"]
        kept = (
            "forgotten",
            "forgotten_person",
            "retained",
            "retained_p05",
            "fd_pre",
            "seconds",
            "steps",
            "delta_bytes",
        )
        row = {"seed": seed, "limit": limit, "forgotten_enough": metrics["forgotten"] <= limit}
        row |= {name: metrics[name] for name in kept}
        row |= {"parameters_moved": metrics["parameters_moved"], "layers": len(metrics["layers"])}
        row |= {f"third_{key}": value for key, value in metrics["third_opinion"].items() if isinstance(value, float)}
        row |= {"stranger_mean": metrics["stranger_mean"], "stranger_std": metrics["stranger_std"]}
        row |= {"peak_memory_bytes": metrics["peak_memory_bytes"]}
        rows.append(row)
        print(
            f"seed {seed}: forgotten {row['forgotten']:.3f} (limit {limit:.3f}), retained {row['retained']:.3f} "
            f"(p05 {row['retained_p05']:.3f}), fd_pre {row['fd_pre']:.2f}, {row['seconds']:.1f} s",
            flush=True,
        )
    summary = {
        name: quantiles([float(row[name]) for row in rows])
        for name in ("forgotten", "retained", "retained_p05", "fd_pre", "seconds", "peak_memory_bytes")
    }
    bounds = {
        "forgotten_seeds": sum(row["forgotten_enough"] for row in rows),
        "seeds": len(rows),
        "retained_mean_reached": summary["retained"]["mean"] >= REQUESTED_RETAINED,
        "seconds_reached": summary["seconds"]["max"] <= REQUESTED_SECONDS,
        "memory_reached": summary["peak_memory_bytes"]["max"] <= REQUESTED_BYTES,
    }
    result = {
        "provenance": provenance(),
        "config": config.to_dict(),
        "rows": rows,
        "summary": summary,
        "bounds": bounds,
    }
    path = write(arguments.name, "cpu", result)
    print(f"{path}: {bounds}")
    held = bounds["forgotten_seeds"] >= 0.9 * len(rows)
    return 0 if held and all(v for k, v in bounds.items() if k.endswith("reached")) else 1


if __name__ == "__main__":
    sys.exit(main())
