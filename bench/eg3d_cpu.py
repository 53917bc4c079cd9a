"""EG3D's renderer on a CPU: the fused operation against the un-fused formulation, side by side.

Run it as `python -m guide_fast.bench.eg3d_cpu` from the root of the repository; it needs no weights. Planes are smooth
random ones of 3 x 32 channels at 256 px, the decoder has 64 hidden units, a ray has 48 + 48 samples.
- eager: `bench/baselines/grid_sample_render.py`, plain PyTorch: every sample's features in memory;
- ours: `kernels.triplane_render` with `impl="auto"`.
Each lives in its own process; they take turns, one rendering each. `gradients` is forward and backward to the planes,
the decoder frozen as GUIDE has it. Peak memory is what a pass adds at most to
the resident memory of a process that holds its inputs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast.bench.mobilestylegan_cpu import MODES, close, summarise, take_turns
from guide_fast.bench.worker import Worker, timed

CONTENDERS = ("eager", "ours")
PLANE, CHANNELS, HIDDEN, COLOURS, SAMPLES = 256, 32, 64, 32, 48
START, END = 2.25, 3.3
TOLERANCE = 1e-3  # norm of the difference to eager, relative: both round to float32 in another order
BENCHMARK = "eg3d_renderer"  # whose file has the goals


def main() -> int:
    """Check that both agree, time them in turns, print a table, store the numbers; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rays", type=int, default=128, help="rays along a side of the image")
    parser.add_argument("--name", default="eg3d_renderer")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.threads, arguments.rays)
    begun = time.perf_counter()
    result = measure(threads=arguments.threads, rounds=arguments.rounds, rays=arguments.rays)
    result |= {"shape": {"rays": arguments.rays**2, "samples": 2 * SAMPLES, "planes": PLANE, "batch": 1}}
    return close(BENCHMARK, arguments.name, arguments.threads, arguments.rounds, result, __doc__, begun)


def measure(*, threads: int, rounds: int, rays: int) -> dict[str, Any]:
    """Check that both agree, time them in turns, print a table; SystemExit where they do not agree."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"threads": threads, "rays": rays}
        workers = {name: Worker("guide_fast.bench.eg3d_cpu", name, Path(folder), **settings) for name in CONTENDERS}
        # first: freed memory may stay resident
        peaks = {mode: {name: worker.ask(f"peak {mode}") for name, worker in workers.items()} for mode in MODES}
        for worker in workers.values():
            worker.ask(f"save {worker.outputs}")
        differences = compare(workers)
    result = summarise(take_turns(workers, rounds))
    for mode in MODES:
        share = peaks[mode]["ours"] / peaks[mode]["eager"]
        mega = {name: round(value / 2**20) for name, value in peaks[mode].items()}
        print(f"{mode:9} peak memory: eager {mega['eager']} MB, ours {mega['ours']} MB, {share:.3f} of it")
        result[mode]["peak_bytes"] = peaks[mode] | {"ours_of_eager": share}
    return result | {"differences": differences}


def compare(workers: dict[str, Worker]) -> dict[str, float]:
    """Norm of the difference to eager of features, of gradients; ends the run where they do not agree."""
    outputs = {name: np.load(worker.outputs) for name, worker in workers.items()}
    found = {}
    for what in ("features", "gradients"):
        base = outputs["eager"][what]
        found[what] = float(np.linalg.norm(outputs["ours"][what] - base) / np.linalg.norm(base))
        if not found[what] <= TOLERANCE:
            raise SystemExit(f"{what} of ours differ by {found[what]}, {TOLERANCE} is allowed: nothing is timed")
    return found


def work(name: str, threads: int, rays: int) -> int:
    """Answer on stdout: "save PATH" writes the outputs, "peak MODE" is bytes, a mode alone is seconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for run in contender(name, threads, 4).values():
        run()  # libraries, threads
    runs = contender(name, threads, rays)
    ctypes.CDLL(None).malloc_trim(0)  # what making the inputs left behind
    before = _status("VmRSS")
    for line in sys.stdin:
        what, _, rest = line.strip().partition(" ")
        if what == "save":
            np.savez(rest, **{key: value for run in runs.values() for key, value in run().items()})
            answers.write("true\n")
        elif what == "peak":
            answers.write(json.dumps(peak_bytes(runs[rest]) - before) + "\n")
        else:
            seconds = timed(runs[what])
            answers.write(json.dumps(seconds) + "\n")
    return 0


Runs = dict[str, Callable[[], dict[str, Any]]]


def contender(name: str, threads: int, rays: int) -> Runs:
    """Both modes of one contender."""
    import torch
    from torch.nn import functional as F

    from guide_fast import kernels
    from guide_fast.bench.baselines.grid_sample_render import grid_sample_render
    from guide_fast.models import cameras

    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    smooth = drawn(3, CHANNELS, PLANE // 8, PLANE // 8)  # as a trained backbone makes planes
    planes = F.interpolate(smooth, size=(PLANE, PLANE), mode="bilinear")
    # NHWC, as the backbone leaves them; the eager form reads NCHW
    planes = planes.contiguous(memory_format=torch.channels_last if name == "ours" else torch.contiguous_format)[None]
    decoder = (
        drawn(HIDDEN, CHANNELS) / CHANNELS**0.5,
        0.1 * drawn(HIDDEN),
        drawn(1 + COLOURS, HIDDEN) / HIDDEN**0.5,
        0.1 * drawn(1 + COLOURS),
    )
    origins, directions = cameras.rays(cameras.Cameras().frontal[None], rays)
    gradient = drawn(1, rays * rays, COLOURS)

    def render(planes: torch.Tensor) -> torch.Tensor:
        if name == "eager":
            return grid_sample_render(
                planes, origins, directions, decoder, start=START, end=END, coarse=SAMPLES, fine=SAMPLES
            )
        return kernels.triplane_render(planes, origins, directions, decoder, ray_start=START, ray_end=END)[0]

    def forward() -> dict[str, Any]:
        with torch.no_grad():
            return {"features": render(planes).numpy()}

    def gradients() -> dict[str, Any]:
        leaf = planes.detach().requires_grad_()
        (found,) = torch.autograd.grad(render(leaf), leaf, gradient)
        return {"gradients": found.numpy()}

    return {"forward": forward, "gradients": gradients}


def peak_bytes(run: Callable[[], Any]) -> int:
    """This process' greatest resident memory during `run`; Linux keeps count, from a reset on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    kept = run()
    peak = _status("VmHWM")
    del kept
    return peak


def _status(field: str) -> int:
    """Bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise SystemExit(f"/proc/self/status has no {field}: peak memory is measured on Linux")


if __name__ == "__main__":
    sys.exit(main())
