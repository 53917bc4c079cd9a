"""MobileStyleGAN at 1024 px on a CPU: our path, eager PyTorch, torch.compile, OpenVINO, side by side.

Run it as `python -m guide_fast.bench.mobilestylegan_cpu` from the root of the repository; it needs the weights in the
cache. Every contender lives in its own process, because memory settings and compilers are a matter of the whole
process; they take turns, one image each. What they are:
- eager: the generator written plainly (`impl="reference"`): NCHW, no in-place operations, malloc as it comes;
- eager_kept: the same with `keep_freed_memory`, which spares page faults;
- compiled: torch.compile of that with the best settings found: channels_last, kept memory, freezing in inference;
- openvino: the published graph, float32, latency hint, forward alone;
- ours: `impl="auto"` as `load_generator` gives it.
`gradients` is forward and backward, to ws and to every modulation weight, convolutions frozen.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast.bench.worker import Worker, timed

CONTENDERS = ("eager", "eager_kept", "compiled", "openvino", "ours")
MODES = ("forward", "gradients")
ASSET = "mobilestylegan-ffhq-1024"
BENCHMARK = "mobilestylegan"  # whose file has the goals
IMAGE_TOLERANCE = 2e-3  # absolute, as the parity test of the generator
GRADIENT_TOLERANCE = 2e-2  # norm of the difference to eager: leaky ReLUs at zero take either side


def main() -> int:
    """Check that all agree, time them in turns, print a table, store the numbers; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--name", default="mobilestylegan")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.threads)
    begun = time.perf_counter()
    result = measure(threads=arguments.threads, rounds=arguments.rounds, only=arguments.only)
    return close(BENCHMARK, arguments.name, arguments.threads, arguments.rounds, result, __doc__, begun)


def measure(*, threads: int, rounds: int, only: list[str], layers: bool = True) -> dict[str, Any]:
    """Check that all agree, time them in turns, print a table; SystemExit where they do not agree."""
    workers: dict[str, Worker] = {}
    modes: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in only:
            starting = time.perf_counter()
            worker = Worker("guide_fast.bench.mobilestylegan_cpu", name, Path(folder), threads=threads)
            workers[name], modes[name] = worker, worker.ask(str(worker.outputs))
            print(f"{name}: ready after {time.perf_counter() - starting:.0f} s", flush=True)
        differences = compare(workers)
    result = summarise(take_turns(workers, rounds, modes))
    return result | {"differences": differences} | ({"layers": layer_rates()} if layers else {})


def take_turns(
    workers: dict[str, Worker], rounds: int, modes: dict[str, list[str]] | None = None
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Every mode's seconds by contender, `rounds` times each in turn; ends the processes."""
    taken: dict[str, dict[str, list[dict[str, float]]]] = {mode: {name: [] for name in workers} for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            for name, worker in workers.items():
                if modes is None or mode in modes[name]:
                    taken[mode][name].append(worker.ask(mode))
    for worker in workers.values():
        worker.close()
    return taken


def close(
    benchmark: str, name: str, threads: int, rounds: int, result: dict[str, Any], said: str | None, begun: float
) -> int:
    """Judge by the goals of the benchmark's file, store; 1 when one is missed."""
    from guide_fast.bench import generator, specification
    from guide_fast.bench.record import provenance, write

    goals = specification.verdicts(specification.load(benchmark), generator.times(result, rounds))
    missed = [goal["goal"] for goal in goals if goal["reached"] is False]
    result |= {"goals_missed": missed, "rounds": rounds, "threads": threads, "provenance": provenance()}
    path = write(name, "cpu", result | {"contenders": said})
    print(f"{path}: {time.perf_counter() - begun:.0f} s; goals missed: {'; '.join(missed) or 'none'}")
    return 1 if missed else 0


def compare(workers: dict[str, Worker]) -> dict[str, dict[str, float]]:
    """Largest difference of the image, of the gradients, to eager; ends the run where they do not agree."""
    outputs = {name: np.load(worker.outputs) for name, worker in workers.items()}
    base = outputs.get("eager", outputs["ours"])
    found: dict[str, dict[str, float]] = {}
    for name, arrays in outputs.items():
        found[name] = {"image": float(np.abs(arrays["image"] - base["image"]).max())}
        if "gradients" in arrays:
            difference = np.linalg.norm(arrays["gradients"] - base["gradients"])
            found[name]["gradients"] = float(difference / np.linalg.norm(base["gradients"]))
        for what, limit in (("image", IMAGE_TOLERANCE), ("gradients", GRADIENT_TOLERANCE)):
            if not found[name].get(what, 0.0) <= limit:
                raise SystemExit(
                    f"{what} of {name} differ by {found[name][what]}, {limit} is allowed: nothing is timed"
                )
    return found


def summarise(taken: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Quantiles of seconds, of CPU seconds, of the ratio to ours in the same round; printed."""
    from guide_fast.bench.record import quantiles

    result: dict[str, Any] = {}
    for mode, contenders in taken.items():
        result[mode] = {}
        for name, rows in contenders.items():
            if not rows:
                continue
            entry = {unit: quantiles([row[unit] for row in rows]) for unit in rows[0]}
            for unit, key in (("seconds", "times_ours"), ("cpu_seconds", "cpu_times_ours")):
                if ours := contenders.get("ours"):
                    entry[key] = quantiles([row[unit] / our[unit] for row, our in zip(rows, ours, strict=True)])
            result[mode][name] = entry
            spread = "{median:.3f} s [{p20:.3f} to {p80:.3f}]".format(**entry["seconds"])
            times = "{median:.2f} [{p20:.2f} to {p80:.2f}]".format(**entry["times_ours"]) if ours else "-"
            print(
                f"{mode:9} {name:10} {spread}; times ours {times}, in CPU time {entry['cpu_times_ours']['median']:.2f}"
            )
    return result


def work(name: str, threads: int) -> int:
    """Answer on stdout: first the path of the outputs, then a mode a line."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # compilers write to stdout
    runs = openvino_runs(threads) if name == "openvino" else torch_runs(name, threads)
    for line in sys.stdin:
        if (mode := line.strip()) not in runs:
            arrays = {key: value for run in runs.values() for key, value in run().items()}
            np.savez(mode, **arrays)
            for run in [*runs.values()] * 2:
                run()
            answers.write(json.dumps(list(runs)) + "\n")
            continue
        seconds = timed(runs[mode])
        answers.write(json.dumps(seconds) + "\n")
    return 0


Runs = dict[str, Callable[[], dict[str, Any]]]


def torch_runs(name: str, threads: int) -> Runs:
    """The PyTorch contenders; outputs are NumPy arrays that share memory with tensors."""
    import torch

    from guide_fast import assets
    from guide_fast.models.memory import keep_freed_memory
    from guide_fast.models.mobile_stylegan import MobileStyleGAN

    torch.set_num_threads(threads)
    if name != "eager":
        keep_freed_memory()
    generator = MobileStyleGAN.from_tensors(*assets.load(ASSET))
    generator.impl = "auto" if name == "ours" else "reference"
    ws = latent(generator)
    modulations = [p for key, p in generator.named_parameters() if ".modulation." in key]
    gy = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))

    def synthesis(ws: torch.Tensor) -> torch.Tensor:
        return generator.synthesis(ws).image

    infer = learn = synthesis
    if name == "compiled":
        from torch._inductor import config

        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # it is a Module
        config.freezing = True  # weights become constants of the inference graph
        infer = torch.compile(synthesis, dynamic=False)
        learn = torch.compile(lambda ws: synthesis(ws), dynamic=False)

    def forward() -> dict[str, Any]:
        for parameter in modulations:
            parameter.requires_grad_(False)
        with torch.no_grad():
            return {"image": infer(ws).numpy()}

    def gradients() -> dict[str, Any]:
        for parameter in modulations:
            parameter.requires_grad_(True)
        leaf = ws.clone().requires_grad_()
        found = torch.autograd.grad(learn(leaf), [leaf, *modulations], gy)
        return {"gradients": np.concatenate([g.numpy().ravel() for g in found])}

    return {"forward": forward, "gradients": gradients}


def latent(generator: Any) -> Any:
    """ws [1, L, D] of one seed."""
    import torch

    with torch.no_grad():
        return generator.mapping(torch.randn(1, 512, generator=torch.Generator().manual_seed(0))).contiguous()


def openvino_runs(threads: int) -> Runs:
    """The published graph in OpenVINO."""
    import openvino  # type: ignore[import-untyped]

    from guide_fast import assets
    from guide_fast.models.mobile_stylegan import MobileStyleGAN

    graph = assets.home() / "sources" / assets.asset(ASSET).archive.slug / "SynthesisNetwork.xml"
    if not graph.is_file():
        assets.fetch(ASSET, force=True)
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()
    w = latent(MobileStyleGAN.from_tensors(*assets.load(ASSET)))[:, 0].numpy()
    return {"forward": lambda: {"image": request.infer([w], share_inputs=True, share_outputs=True)[0]}}


PEAK = """
#include <chrono>
#include <cstdio>
typedef float vec __attribute__((vector_size(64)));
int main() {
  double best = 1e9;
  for (int repeat = 0; repeat < 20; ++repeat) {
    vec sums[12], x = vec{} + 0.999f, y = vec{} + 0.001f;
    for (int i = 0; i < 12; ++i) sums[i] = vec{} + float(i);
    const auto begun = std::chrono::steady_clock::now();
    for (int k = 0; k < 1000000; ++k) {
#pragma GCC unroll 12
      for (int i = 0; i < 12; ++i) sums[i] = sums[i] * x + y;
      asm volatile("" : "+v"(x));
    }
    for (int i = 0; i < 12; ++i) asm volatile("" ::"v"(sums[i]));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
    if (taken.count() < best) best = taken.count();
  }
  std::printf("%f", 2e-9 * 12 * 16 * 1e6 / best);
}
"""


def layer_rates() -> dict[str, Any]:
    """GFLOP/s of each separable convolution on one core, with the FMA peak of that core where it can be measured."""
    import torch

    from guide_fast.kernels import separable_conv2d
    from guide_fast.models.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    rows: dict[str, Any] = {}
    channels = [512, 512, 512, 512, 512, 256, 128, 64]
    for i, (before, after) in enumerate(pairwise(channels)):
        size = 8 << i
        for part, inputs in (("conv1", before // 4), ("conv2", after)):
            up = part == "conv1"
            shape = (1, before, size // 2, size // 2) if up else (1, inputs, size, size)
            x = tensor(*shape).contiguous(memory_format=torch.channels_last).requires_grad_()
            style, haar_style = tensor(1, inputs).requires_grad_(), tensor(1, before) if up else None
            weights = tensor(inputs, 1, 3, 3), tensor(after, inputs, 1, 1)
            noise = tensor(1, 1, size, size)
            best = {"forward": 1e9, "backward": 1e9}
            for _ in range(6):
                begun = time.process_time()
                y = separable_conv2d(x, *weights, style, haar_style=haar_style, noise=noise)
                best["forward"] = min(best["forward"], time.process_time() - begun)
                begun = time.process_time()
                torch.autograd.grad(y, (x, style), y)
                best["backward"] = min(best["backward"], time.process_time() - begun)
            flop = 2e-9 * size * size * inputs * (9 + after)
            rows[f"{size} {part}"] = {key: flop / seconds for key, seconds in best.items()}
    peak = fma_peak()
    for name, row in rows.items():
        print(f"{name:10} forward {row['forward']:5.1f}, backward {row['backward']:5.1f} GFLOP/s of {peak or 0:.1f}")
    return {"gflops": rows, "fma_peak_gflops_one_core": peak}


def fma_peak() -> float | None:
    """GFLOP/s of fused multiply-adds on one core; None without a C++ compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.cpp"), Path(folder, "peak")
        source.write_text(PEAK, encoding="utf-8")
        try:
            command = ["c++", "-O3", "-march=native", "-mprefer-vector-width=512", str(source), "-o", str(program)]
            subprocess.run(command, check=True, capture_output=True)
            return float(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return None


if __name__ == "__main__":
    sys.exit(main())
