"""StyleGAN2 at 256 px (channel_base 16384) on a CPU: our path beside the un-fused formulation, in one run.

Run it as `python -m guide_fast.bench.stylegan2_cpu` from the root of the repository. Weights are random: time does not
depend on them. Every contender lives in its own process, because memory settings are a matter of the whole process;
they take turns, one image each. What they are:
- eager: bench/baselines/stylegan2_eager.py, a weight [N, O, I, 3, 3] per image, grouped convolutions in NCHW, every
  operation a pass over memory, malloc as it comes;
- eager_kept: the same with `keep_freed_memory`, which spares page faults;
- ours: `impl="auto"` as `load_generator` gives it.
`gradients` is forward and backward, to ws and to every modulation weight, convolutions frozen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from guide_fast.bench.mobilestylegan_cpu import close, summarise, take_turns
from guide_fast.bench.worker import Worker, timed

CONTENDERS = ("eager", "eager_kept", "ours")
BENCHMARK = "stylegan2"  # whose file has the goals
SIZE = 256
CONFIG: dict[str, Any] = {
    "family": "stylegan2",
    "name": "stylegan2-256",
    "z_dim": 512,
    "c_dim": 0,
    "w_dim": 512,
    "img_resolution": SIZE,
    "img_channels": 3,
    "channel_base": 16384,
    "channel_max": 512,
    "num_fp16_res": 0,
    "conv_clamp": None,
    "architecture": "skip",
    "mapping": {"num_layers": 8, "lr_multiplier": 0.01},
}
IMAGE_TOLERANCE = 1e-4  # of the image's range, as the parity tests
GRADIENT_TOLERANCE = 1e-3  # norm of the difference to eager: leaky ReLUs at zero take either side


def main() -> int:
    """Check that all agree, time them in turns, print a table, store the numbers; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--name", default="stylegan2")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.threads, arguments.batch)
    begun = time.perf_counter()
    result = measure(threads=arguments.threads, rounds=arguments.rounds, batch=arguments.batch) | {
        "batch": arguments.batch
    }
    return close(BENCHMARK, arguments.name, arguments.threads, arguments.rounds, result, __doc__, begun)


def measure(*, threads: int, rounds: int, batch: int) -> dict[str, Any]:
    """Check that all agree, time them in turns, print a table; SystemExit where they do not agree."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"threads": threads, "batch": batch}
        workers = {
            name: Worker("guide_fast.bench.stylegan2_cpu", name, Path(folder), **settings) for name in CONTENDERS
        }
        for worker in workers.values():
            worker.ask(str(worker.outputs))
        differences = compare(workers)
    return summarise(take_turns(workers, rounds)) | {"differences": differences}


def compare(workers: dict[str, Worker]) -> dict[str, dict[str, float]]:
    """Difference of image, of gradients, to eager; ends the run where they do not agree."""
    outputs = {name: np.load(worker.outputs) for name, worker in workers.items()}
    base = outputs["eager"]
    found: dict[str, dict[str, float]] = {}
    for name, arrays in outputs.items():
        difference = np.linalg.norm(arrays["gradients"] - base["gradients"])
        found[name] = {
            "image": float(np.abs(arrays["image"] - base["image"]).max() / np.ptp(base["image"])),
            "gradients": float(difference / np.linalg.norm(base["gradients"])),
        }
        for what, limit in (("image", IMAGE_TOLERANCE), ("gradients", GRADIENT_TOLERANCE)):
            if not found[name][what] <= limit:
                raise SystemExit(
                    f"{what} of {name} differ by {found[name][what]}, {limit} is allowed: nothing is timed"
                )
    return found


def work(name: str, threads: int, batch: int) -> int:
    """Answer on stdout: first the path of the outputs, then a mode a line."""
    runs = contender(name, threads, batch)
    for line in sys.stdin:
        if (mode := line.strip()) not in runs:
            np.savez(mode, **{key: value for run in runs.values() for key, value in run().items()})
            for run in [*runs.values()] * 2:
                run()
            print(json.dumps(list(runs)), flush=True)
            continue
        seconds = timed(runs[mode])
        print(json.dumps(seconds), flush=True)
    return 0


def contender(name: str, threads: int, batch: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """The modes of one contender; outputs are NumPy arrays."""
    import torch

    from guide_fast.bench.baselines.stylegan2_eager import eager_synthesis
    from guide_fast.models.memory import keep_freed_memory

    torch.set_num_threads(threads)
    if name != "eager":
        keep_freed_memory()
    generator = random_generator()
    network = generator.synthesis_network
    random = torch.Generator().manual_seed(1)
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, generator=random)
    gy = torch.randn(batch, 3, SIZE, SIZE, generator=random)
    weights = dict(network.named_parameters()) | dict(network.named_buffers())
    weights = {key: value for key, value in weights.items() if not key.endswith("resample")}
    modulations = [value for key, value in weights.items() if ".modulation." in key]

    def synthesis(ws: torch.Tensor) -> torch.Tensor:
        if name == "ours":
            return generator.synthesis(ws).image
        return eager_synthesis(weights, ws, architecture="skip", clamp=None)

    def forward() -> dict[str, Any]:
        for parameter in modulations:
            parameter.requires_grad_(False)
        with torch.no_grad():
            return {"image": synthesis(ws).numpy()}

    def gradients() -> dict[str, Any]:
        for parameter in modulations:
            parameter.requires_grad_(True)
        leaf = ws.clone().requires_grad_()
        found = torch.autograd.grad(synthesis(leaf), [leaf, *modulations], gy)
        return {"gradients": np.concatenate([g.numpy().ravel() for g in found])}

    return {"forward": forward, "gradients": gradients}


def random_generator() -> Any:
    """StyleGAN2 as at the start of training, with noise that shows."""
    import torch

    from guide_fast.models.stylegan2 import StyleGAN2

    generator = StyleGAN2(CONFIG).requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for name, tensor in [*generator.named_parameters(), *generator.named_buffers()]:
        if not name.endswith("resample"):
            scale = 0.1 if name.endswith(("bias", "strength")) else 1.0
            tensor.copy_(torch.randn(tensor.shape, generator=random) * scale + name.endswith("modulation.bias"))
    return generator.eval()


if __name__ == "__main__":
    sys.exit(main())
