"""A server of the default generator in a process of its own: ours, plain PyTorch, ONNX Runtime, OpenVINO.

`python -m guide_fast.bench.serve_contender --worker NAME --threads N --workers N --session KIND --queue N --folder DIR`
answers each line on its stdin, a JSON object, with one of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guide_fast.bench import open_loop, serve_swaps
from guide_fast.bench.serve_swaps import STEP
from guide_fast.errors import GuideFastError, UsageError
from guide_fast.serve.batcher import Batcher
from guide_fast.serve.session import Rendered, Shape, Version, checked

Array = NDArray[Any]
ASSET = "mobilestylegan-ffhq-1024"
SESSIONS = ("eager", "torch", "onnx", "openvino")


def main() -> int:
    """Be the contender that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--session", choices=SESSIONS, required=True)
    parser.add_argument("--queue", type=int, required=True)
    parser.add_argument("--exported", type=Path)
    arguments = parser.parse_args()
    out, sys.stdout = sys.stdout, sys.stderr  # the answers have stdout for themselves
    try:
        session = opened(arguments.session, arguments.threads, arguments.workers, arguments.exported)
        contender = Contender(session, queue=arguments.queue, workers=arguments.workers)
    except GuideFastError as error:
        sys.stdin.readline()  # the first question; this is its answer
        out.write(json.dumps({"error": str(error)}) + "\n")
        out.flush()
        return error.exit_code
    for line in sys.stdin:
        out.write(json.dumps(contender.answer(json.loads(line))) + "\n")
        out.flush()
    contender.batcher.close()
    return 0


def opened(kind: str, threads: int, workers: int, exported: Path | None) -> Any:
    """A session of that kind; raises UsageError where its runtime is not installed."""
    if kind == "onnx":
        from guide_fast.serve.onnx_session import OnnxSession

        assert exported is not None
        return OnnxSession(exported, threads=threads)
    if kind == "openvino":
        return OpenVinoSession(threads=threads, streams=workers)
    import torch

    from guide_fast import assets
    from guide_fast.models import loading
    from guide_fast.models.mobile_stylegan import MobileStyleGAN
    from guide_fast.serve.torch_session import TorchSession

    torch.set_num_threads(threads)
    if kind == "torch":
        return TorchSession(loading.load(ASSET))
    eager = MobileStyleGAN.from_tensors(*assets.load(ASSET))
    eager.impl = "reference"
    return TorchSession(eager)


class OpenVinoSession:
    """The published graphs as they are: one latent for every slot, image by image."""

    runtime, batch = "openvino", 1
    version = Version("published")

    def __init__(self, *, threads: int, streams: int) -> None:
        """Raises UsageError without OpenVINO."""
        try:
            import openvino  # type: ignore[import-untyped]
        except ImportError:
            raise UsageError('openvino is not installed; `pip install "guide-fast[parity]"` brings it') from None
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        }
        graphs = [graph(f"{part}Network") for part in ("Mapping", "Synthesis")]
        self._models = [core.compile_model(path, "CPU", options) for path in graphs]
        self._own = threading.local()  # an inference request belongs to one thread at a time
        self.shape = Shape("mobilestylegan-ffhq-1024", z_dim=512, num_ws=23, w_dim=512, c_dim=0, resolution=1024)

    def render(self, **given: Any) -> Rendered:
        """Images of z."""
        inputs = checked(self.shape, **given)
        assert inputs.z is not None
        if not hasattr(self._own, "requests"):
            self._own.requests = [model.create_infer_request() for model in self._models]
        mapping, synthesis = self._own.requests
        images = []
        for z in inputs.z:
            w = mapping.infer([z[None]], share_inputs=True)[0]
            images.append(np.array(synthesis.infer([w], share_inputs=True, share_outputs=True)[0]))
        return Rendered(np.concatenate(images), self.version)


def graph(name: str) -> Path:
    """The published graph called `name`, fetched where it is not there."""
    from guide_fast import assets

    path = assets.home() / "sources" / assets.asset(ASSET).archive.slug / f"{name}.xml"
    if not path.is_file():
        assets.fetch(ASSET, force=True)
    return path


class Contender:
    """A session behind a batcher; what it is asked, it measures."""

    def __init__(self, session: Any, *, queue: int, workers: int) -> None:
        self.session = session
        self.batcher = Batcher(session, queue=queue, workers=workers, max_wait=0.0)
        self.waiting = 2 * workers * session.batch

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a question is worth; "error" where the session cannot."""
        questions: dict[str, Callable[..., dict[str, Any]]] = {
            "images": self.images,
            "capacity": self.capacity,
            "load": self.load,
            "swaps": self.swaps,
        }
        options = {key: value for key, value in asked.items() if key != "ask"}
        try:
            return questions[asked["ask"]](**options)
        except GuideFastError as error:
            return {"error": str(error)}

    def images(self, *, z: list[list[float]], path: str) -> dict[str, Any]:
        """The images of every z go to `path`, sparse."""
        rows = np.asarray(z, np.float32)
        images = [self.batcher.submit(z=one).result().image[:, ::STEP, ::STEP] for one in rows]
        np.save(path, np.stack(images))
        return {"resolution": self.session.shape.resolution}

    def capacity(self, *, z: list[list[float]], seconds: float) -> dict[str, Any]:
        """Images a second."""
        rate = open_loop.closed_loop(self.batcher, np.asarray(z, np.float32), seconds=seconds, waiting=self.waiting)
        return {"images_per_second": rate}

    def load(self, *, z: list[list[float]], rate: float, seconds: float, seed: int, timeout: float) -> dict[str, Any]:
        """Latencies of all that was offered; null where nothing was served."""
        arrivals = open_loop.poisson(rate, seconds, seed)
        found = open_loop.offer(self.batcher, np.asarray(z, np.float32), arrivals, timeout=timeout)
        return {"latencies": _plain(found.latencies), "last": max((end for end in found.finished if end), default=0.0)}

    def swaps(
        self,
        *,
        z: list[list[float]],
        rate: float,
        seconds: float,
        seed: int,
        timeout: float,
        delta: str,
        every: float,
    ) -> dict[str, Any]:
        """Weights go to and fro under load; raises UsageError where the session's cannot."""
        if not hasattr(self.session, "apply"):
            raise UsageError(f"{self.session.runtime} has weights that cannot be exchanged; leave it out")
        arrivals = open_loop.poisson(rate, seconds, seed)
        return serve_swaps.measure(
            self.session, self.batcher, np.asarray(z, np.float32), arrivals, Path(delta), every=every, timeout=timeout
        )


def _plain(latencies: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in latencies]


if __name__ == "__main__":
    sys.exit(main())
