"""Latency against offered load: contenders in turn at the same arrivals, their exchanges of weights, their ratios."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guide_fast.bench import figures
from guide_fast.bench.figures import Figure, number, said, spread
from guide_fast.bench.open_loop import PERCENTILES, percentiles
from guide_fast.bench.specification import Specification
from guide_fast.bench.worker import Worker
from guide_fast.errors import EvidenceError, GuideFastError
from guide_fast.progress import Progress, silent

MODULE = "guide_fast.bench.serve_contender"
Array = NDArray[Any]


class Race:
    """The contenders of one run, each in its process; one that cannot start is left out with the reason."""

    def __init__(self, specification: Specification, folder: Path, progress: Progress) -> None:
        self.values, self.folder, self.progress = specification.values, folder, progress
        self.workers: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}
        random = np.random.default_rng(self.values["seed"])
        self.z: list[list[float]] = random.standard_normal((self.values["latents"], 512), dtype=np.float32).tolist()

    def start(self, exported: Path | None) -> None:
        """Start all; the image of every latent of each is held against eager PyTorch's, or else against ours.

        Raises EvidenceError where two differ, GuideFastError where ours cannot start.
        """
        for place, (name, contender) in enumerate(self.values["contenders"].items()):
            self.progress("starting servers", place, len(self.values["contenders"]), {})
            options: dict[str, Any] = {
                "session": contender["session"],
                "workers": contender["workers"],
                "queue": self.values["queue"],
            }
            options |= {"exported": str(exported)} if exported else {}
            worker = Worker(MODULE, name, self.folder, threads=contender["threads"], **options)
            path = str(self.folder / f"{name}.npy")
            try:
                self._ask(worker, "images", path=path)
            except (GuideFastError, SystemExit) as error:
                if name == self.values["ours"]:
                    raise GuideFastError(f"{name} cannot be served: {error}") from None
                self.left_out[name] = str(error)
                worker.close()
                continue
            self.workers[name] = worker
        self.progress("starting servers", len(self.values["contenders"]), len(self.values["contenders"]), {})

    def differences(self) -> dict[str, float]:
        """Largest difference of each one's images to the reference's; raises EvidenceError beyond the tolerance."""
        images = {name: np.load(self.folder / f"{name}.npy") for name in self.workers}
        base = images.get("eager", images[self.values["ours"]])
        found = {name: float(np.abs(image - base).max()) for name, image in images.items()}
        for name, difference in found.items():
            if not difference <= self.values["tolerance"]:
                raise EvidenceError(
                    f"images of {name} differ by {difference:.2g}, {self.values['tolerance']:g} is allowed: "
                    "nothing was timed"
                )
        return found

    def capacities(self) -> dict[str, float]:
        """Images a second of each."""
        seconds = self.values["capacity_seconds"]
        return {
            name: self._ask(worker, "capacity", seconds=seconds)["images_per_second"]
            for name, worker in self.workers.items()
        }

    def latencies(self, name: str, rate: float, seed: int) -> list[float]:
        """Seconds of all that was offered; infinite where nothing was served."""
        load = {"rate": rate, "seconds": self.values["seconds"], "seed": seed, "timeout": self.values["timeout"]}
        answer = self._ask(self.workers[name], "load", **load)
        return [math.inf if value is None else value for value in answer["latencies"]]

    def swaps(self, name: str, rate: float, delta: Path) -> dict[str, Any] | None:
        """What exchanging weights under load cost; None for a session that cannot."""
        load: dict[str, Any] = {"rate": rate, "seconds": self.values["swap_seconds"], "seed": self.values["seed"]}
        load |= {"timeout": self.values["timeout"], "every": self.values["swap_every"], "delta": str(delta)}
        return self._ask(self.workers[name], "swaps", **load)

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers.values():
            worker.close()

    def _ask(self, worker: Worker, what: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = worker.ask(json.dumps({"ask": what, "z": self.z, **more}))
        if "error" in answer:
            raise GuideFastError(answer["error"])
        return answer


def run(specification: Specification, *, progress: Progress = silent) -> dict[str, Any]:
    """Start, check, measure all contenders; the result with figures.

    Raises EvidenceError where contenders compute different things: then nothing was timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        race = Race(specification, Path(folder), progress)
        try:
            race.start(_exported(specification, Path(folder)))
            differences = race.differences()
            return _measured(specification, race, differences)
        finally:
            race.close()


def _measured(specification: Specification, race: Race, differences: dict[str, float]) -> dict[str, Any]:
    values = specification.values
    rounds = [race.capacities() for _ in range(values["rounds"])]
    quickest = max(float(np.median([r[name] for r in rounds])) for name in race.workers)
    latencies: dict[tuple[str, float], list[float]] = {}
    steps, done = values["rounds"] * len(values["loads"]) * len(race.workers), 0
    beyond: dict[str, float] = {}  # the load that was too much
    for turn in range(values["rounds"]):
        for load in values["loads"]:
            for name in race.workers:
                race.progress("offering requests", done, steps, {"load": load})
                done += 1
                if load <= beyond.get(name, load):
                    found = race.latencies(name, load * quickest, values["seed"] + turn)
                    latencies.setdefault((name, load), []).extend(found)
                    if sum(map(math.isfinite, found)) < values["least_share"] * len(found):
                        beyond[name] = load
    race.progress("offering requests", done, steps, {})
    exchanged = _exchanged(specification, race, rounds)
    rows = [_row(name, load, load * quickest, taken) for (name, load), taken in latencies.items()]
    rows += [{"contender": name, "swaps": swaps, "gate": _whole(swaps)} for name, swaps in exchanged.items()]
    made = _capacity_figures(rounds, values["ours"]) | _latency_figures(rows, values["ours"])
    for name, swaps in exchanged.items():
        made |= _swap_figures(name, swaps)
    more: dict[str, Any] = {"differences": differences, "left_out": race.left_out, "too_much": beyond}
    result = figures.envelope(specification, made, rows, **more)
    provenance: dict[str, Any] = result["provenance"]
    threads = max(c["threads"] * c["workers"] for c in values["contenders"].values())
    return {**result, "provenance": {**provenance, "threads": threads, **versions()}}


def _exchanged(specification: Specification, race: Race, rounds: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """By contender, for those whose weights can be exchanged; one worker renders and one thread exchanges."""
    delta = race.folder / "delta.safetensors"
    _delta(delta)
    found = {}
    for name, contender in specification.values["contenders"].items():
        if name in race.workers and contender["session"] in ("torch", "onnx") and contender["workers"] == 1:
            rate = specification.values["swap_load"] * float(np.median([r[name] for r in rounds]))
            found[name] = race.swaps(name, rate, delta) or {}
    return found


def _exported(specification: Specification, folder: Path) -> Path | None:
    """The generator as ONNX, where a contender needs it."""
    if not any(contender["session"] == "onnx" for contender in specification.values["contenders"].values()):
        return None
    from guide_fast.export.to_onnx import export_onnx
    from guide_fast.models import loading

    return export_onnx(loading.load(specification.values["generator"]), folder / "exported").folder


def _delta(path: Path) -> None:
    """A delta that moves every modulation of the default generator by a hundredth of its spread."""
    import copy

    import torch

    from guide_fast.deltas import make_delta
    from guide_fast.models import loading

    base = loading.load(loading.GENERATORS[0])
    changed = copy.deepcopy(base)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if ".modulation." in name:
                parameter.add_(0.01 * parameter.std() * torch.randn(parameter.shape, generator=random))
    make_delta(base, changed, config={}, seeds={}, metrics={}).save(path)


def versions() -> dict[str, str]:
    """Of the runtimes that are installed."""
    from importlib import metadata

    found = {}
    for package in ("onnxruntime", "openvino", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _row(name: str, load: float, rate: float, latencies: list[float]) -> dict[str, Any]:
    served = sum(math.isfinite(value) for value in latencies)
    return {
        "contender": name,
        "load": load,
        "offered_per_second": rate,
        "offered": len(latencies),
        "served": served,
        "gate": "passed",
        **percentiles(latencies),
    }


def _whole(found: Mapping[str, Any]) -> str:
    return "passed" if not found["wrong"] else f"{found['wrong']} images are not of the version that they claim"


def _capacity_figures(rounds: list[dict[str, float]], ours: str) -> dict[str, Figure]:
    made = {f"images a second: {name}": spread([r[name] for r in rounds], unit="1/s") for name in rounds[0]}
    for name in rounds[0]:
        if name != ours:
            made[f"images a second over {name}"] = spread([r[ours] / r[name] for r in rounds])
    return made


def _latency_figures(rows: list[dict[str, Any]], ours: str) -> dict[str, Figure]:
    """p50, p95, p99 in ms by load; a percentile that was not served has no figure, its share served says why."""
    made: dict[str, Figure] = {}
    by_load = [row for row in rows if "load" in row]
    best = {row["load"]: row for row in by_load if row["contender"] == ours}
    for percent in PERCENTILES:
        for row in by_load:
            key, name = f"p{percent}", row["contender"]
            if row[key] is not None:
                made[f"p{percent} at {row['load']:g}: {name}"] = _one(row[key] * 1e3, row["offered"], "ms")
                mine = best[row["load"]][key]
                if name != ours and mine is not None:
                    made[f"p{percent} at {row['load']:g} over {name}"] = _one(mine / row[key], row["offered"], "")
    for row in by_load:
        share = row["served"] / row["offered"]
        made[f"share served at {row['load']:g}: {row['contender']}"] = _one(share, row["offered"], "")
    return made


def _one(value: float, count: int, unit: str) -> Figure:
    """A figure of many requests that is one number."""
    return spread([value], unit=unit) | {"requests": count}


def _swap_figures(name: str, found: Mapping[str, Any]) -> dict[str, Figure]:
    made = {
        f"exchange: {name}": spread([value * 1e3 for value in found["exchange_seconds"]], unit="ms"),
        f"next weights ready after: {name}": spread([value * 1e3 for value in found["prepare_seconds"]], unit="ms"),
    }
    for key, text in (("around", "latency around an exchange"), ("apart", "latency without one")):
        made[f"{text}: {name}"] = spread([value * 1e3 for value in found[key]], unit="ms")
    return made


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for a reader of a terminal."""
    made = result["figures"]
    yield f"{result['title']}, {result['provenance']['processor']}"
    for name, figure in made.items():
        if name.startswith("images a second"):
            yield f"{name}: {said(figure)}"
    for row in result["rows"]:
        if "load" in row:
            times = ", ".join(f"p{p} {_ms(row[f'p{p}'])}" for p in PERCENTILES)
            yield (
                f"{number(row['offered_per_second'])} images a second asked of {row['contender']}: {times}, "
                f"{row['served']} of {row['offered']} served"
            )
    for name, figure in made.items():
        if ("exchange" in name or name.startswith(("next weights", "latency without"))) and figure["n"]:
            yield f"{name}: {said(figure)}"
    for name, load in result["too_much"].items():
        yield f"more than {load:g} of the quickest's images a second was not offered to {name}"
    for name, reason in result["left_out"].items():
        yield f"left out: {name}: {reason}"


def _ms(seconds: float | None) -> str:
    return "not served" if seconds is None else f"{number(seconds * 1e3)} ms"
