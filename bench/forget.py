"""Forgetting ten people against both baselines: ratios at equal quality, seconds of a first person, of a next one.

For each person, in one run: ours with nothing kept, ours with the bank warm, then every baseline until it is as good as
ours (`equal_quality`) or so many times slower that the ratio is stopped as a lower bound. A person's row is stored when
it is complete, so that a stopped run goes on with the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guide_fast import assets
from guide_fast.artifacts import Latent
from guide_fast.bench import figures
from guide_fast.bench.baselines.guide_compiled import GuideCompiled
from guide_fast.bench.baselines.guide_method import Method
from guide_fast.bench.baselines.guide_published import GuidePublished
from guide_fast.bench.equal_quality import MEASURED, EqualQuality, Judges
from guide_fast.bench.forget_figures import person_figures
from guide_fast.bench.race import Contender, race
from guide_fast.bench.record import provenance
from guide_fast.bench.specification import Specification
from guide_fast.config import Config, EvaluateConfig
from guide_fast.errors import UsageError
from guide_fast.ltu import Networks
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

LOOPS: dict[str, Callable[..., Contender]] = {"guide_published": GuidePublished, "guide_compiled": GuideCompiled}
# The quality of a person forgotten with nothing kept is that of the next run; here only the seconds are wanted.
SMALL = {"fd_images": 3, "bystanders": 1, "stranger_pairs": 2, "neighbours": 0}
KEPT = ("assets", "sources", "brought", "derived")  # of the cache; `derived` anew

Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What all people share."""

    base: Generator
    networks: Networks
    judges: Judges
    config: Config  # with the benchmark's evaluation
    forget: Callable[..., Any]  # guide_fast.pipeline.forget
    home: Path  # of the cache during the run


def run(
    specification: Specification,
    out: Path,
    *,
    setup: Callable[[Specification], contextlib.AbstractContextManager[Setup]] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure every seed that has no row in `out` yet; the result with figures, rows, goals.

    Raises UsageError for a baseline or a loop that is not there.
    """
    values = specification.values
    racing = _racing(specification)
    for name, baseline in racing.items():
        if baseline["loop"] not in LOOPS:
            raise UsageError(
                f"baselines.{name}.loop = {baseline['loop']!r} is unknown; choose one of {', '.join(LOOPS)}"
            )
    torch.set_num_threads(values["threads"])
    folder = out / "persons"
    folder.mkdir(parents=True, exist_ok=True)
    began = provenance()  # a checkout may move on in half an hour, the code that runs does not
    key = _key(specification, began)
    rows = {seed: row for seed in values["seeds"] if (row := _stored(folder, seed, key)) is not None}
    missing = [seed for seed in values["seeds"] if seed not in rows]
    progress("people", len(rows), len(values["seeds"]), {})
    if missing:
        with (setup or opened)(specification) as ready:
            racers = {name: _racer(ready, baseline) for name, baseline in racing.items()}
            for seed in missing:
                rows[seed] = key | _person(specification, ready, racers, seed, progress)
                figures.save(rows[seed], folder / f"seed-{seed}.json")
                progress("people", len(rows), len(values["seeds"]), {})
    ordered = [rows[seed] for seed in values["seeds"]]
    made = person_figures(ordered, list(racing))
    result = figures.envelope(specification, made, ordered)
    result |= {"provenance": began, "clocks_at_end": result["provenance"]["clocks"]}
    return result | {name: figure for name, figure in made.items() if name not in result}


@contextlib.contextmanager
def opened(specification: Specification) -> Iterator[Setup]:
    """The real generator, networks, judges, in a cache of the run's own: nothing derived is there but a fitted head."""
    from guide_fast import pipeline
    from guide_fast._networks import judges, loss_networks

    judge, third = judges()
    networks = loss_networks()
    base = pipeline.load_generator(specification.values["generator"])
    config = dataclasses.replace(Config(), evaluate=EvaluateConfig(**specification.values["evaluate"]))
    with cold_home() as home:
        yield Setup(base, networks, Judges(judge, third, networks.perceptual), config, pipeline.forget, home)


@contextlib.contextmanager
def cold_home() -> Iterator[Path]:
    """GUIDE_FAST_HOME is a temporary folder with the present cache's weights, without what was derived from them."""
    before, real = os.environ.get("GUIDE_FAST_HOME"), assets.home()
    with tempfile.TemporaryDirectory(prefix="guide-fast-bench-") as folder:
        for name in KEPT[:-1]:
            if (real / name).is_dir():
                (Path(folder) / name).symlink_to((real / name).resolve(), target_is_directory=True)
        os.environ["GUIDE_FAST_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GUIDE_FAST_HOME"]
            else:
                os.environ["GUIDE_FAST_HOME"] = before


def _person(
    specification: Specification, setup: Setup, racers: Mapping[str, Contender], seed: int, progress: Progress
) -> Row:
    for bank in (setup.home / "derived").glob("bank-*"):
        bank.unlink()
    small = dataclasses.replace(setup.config, evaluate=dataclasses.replace(setup.config.evaluate, **SMALL))
    first = setup.forget(setup.base, seed=seed, config=small, progress=progress)
    done = setup.forget(setup.base, seed=seed, config=setup.config, progress=progress)
    metrics = done.metrics
    ours = {name: metrics[name] for name in (*MEASURED, "stranger_mean", "stranger_std", "steps", "stopped")}
    ours |= {"seconds_first": _spent(first.metrics), "seconds_next": _spent(metrics)}
    ours |= {"stages_first": first.metrics["seconds_by_stage"], "stages_next": metrics["seconds_by_stage"]}
    ours |= {"layers": len(metrics["layers"]), "parameters_moved": metrics["parameters_moved"]}
    row: Row = {"seed": seed, "ours": ours, "gate": "passed", "baselines": {}}
    if metrics["shortfalls"]:  # a speed at another quality says nothing
        return row | {"gate": " ".join(metrics["shortfalls"])}
    for name, racer in racers.items():
        row["baselines"][name] = _raced(specification, setup, name, racer, done.source, ours, progress)
    return row


def _raced(
    specification: Specification,
    setup: Setup,
    name: str,
    racer: Contender,
    source: Latent,
    ours: Row,
    progress: Progress,
) -> Row:
    baseline, values = specification.values["baselines"][name], specification.values
    quality = EqualQuality(
        setup.base,
        source,
        ours,
        judges=setup.judges,
        config=setup.config.evaluate,
        noise=values["id_noise"] * ours["stranger_std"],
        recheck=values["recheck_steps"],
        cache_dir=setup.home / "derived",
    )
    allowed = baseline["cap"] * ours["seconds_next"]
    stage = f"baseline {name}"
    progress(stage, 0, round(allowed), {})
    ran = race(
        racer,
        source.w,
        _seed_of(source),
        good_enough=quality,
        allowed_seconds=allowed,
        most_steps=baseline["method"]["steps"],
        tick=lambda steps, seconds: progress(stage, min(round(seconds), round(allowed)), round(allowed), {}),
    )
    measured = quality.measure(racer.student, ran.steps)
    return {
        "seconds": ran.seconds,
        "steps": ran.steps,
        "stopped": ran.stopped,
        "censored": ran.censored,
        "ratio": ran.seconds / ours["seconds_next"],
        "ratio_first": ran.seconds / ours["seconds_first"],
        "compile_seconds": racer.compile_seconds,  # off the clock
        "step_seconds": ran.step_seconds,
        "checks": ran.checks,
        **measured,
    }


def _spent(metrics: Mapping[str, Any]) -> float:
    """Seconds of a person: the choice of the target, the bank (made or read), unlearning; no evaluation."""
    stages = metrics["seconds_by_stage"]
    return float(stages["unlearning"] + stages["bank"])


def _racer(setup: Setup, baseline: Mapping[str, Any]) -> Contender:
    return LOOPS[baseline["loop"]](setup.base, setup.networks, Method(**baseline["method"]))


def _seed_of(source: Latent) -> int:
    return int(source.origin.removeprefix("seed:"))


def _racing(specification: Specification) -> dict[str, Any]:
    values = specification.values
    for name in values["race"]:
        if name not in values["baselines"]:
            raise UsageError(f"there is no baseline {name}; choose of {', '.join(values['baselines'])}")
    return {name: values["baselines"][name] for name in values["race"]}


def _key(specification: Specification, began: Mapping[str, Any]) -> Row:
    """What a stored row has to share with this run to belong to it; seeds may differ."""
    values = {name: value for name, value in specification.values.items() if name != "seeds"}
    return {
        "settings": json.loads(json.dumps(values)),
        "commit": began["commit"],
        "processor": began["processor"],
        "ltu": dataclasses.asdict(Config().ltu),
        "target": dataclasses.asdict(Config().target),
    }


def _stored(folder: Path, seed: int, key: Row) -> Row | None:
    path = folder / f"seed-{seed}.json"
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # of a write by something else: measured anew
        return None
    return row if isinstance(row, dict) and all(row.get(name) == value for name, value in key.items()) else None
