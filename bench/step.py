"""One step of unlearning, taken apart: a waterfall from the published loop's step to ours, every row measured.

First the published loop at the generator's own resolution, then at that of our steps; then our loop in plain PyTorch
with all its switches off, on our kernels, with one more switch on in each row. A row's seconds count only when its
losses are right: the published loop's first one is that of the batched formulation, ours are those of our loop in plain
PyTorch with everything off.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from guide_fast.bench import figures
from guide_fast.bench.baselines.guide_compiled import GuideCompiled
from guide_fast.bench.baselines.guide_method import Method, as_reference, ufo_target
from guide_fast.bench.baselines.guide_published import GuidePublished
from guide_fast.bench.specification import Specification
from guide_fast.config import LtuConfig
from guide_fast.kernels import _dispatch
from guide_fast.ltu import Bank, Networks, preservation_bank, unlearn
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress, silent

PUBLISHED, OURS = "guide_published", "ours"
NEVER = -1.0  # a similarity that no step reaches, so that none ends the loop early

Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """A generator that renders at the steps' resolution, the networks of the loss."""

    base: Generator
    networks: Networks
    bank: Bank
    w_u: Tensor  # [L, D]
    w_t: Tensor  # [L, D]
    config: LtuConfig


def run(
    specification: Specification,
    *,
    setup: Callable[[Specification], contextlib.AbstractContextManager[Setup]] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure every row; the result with figures, rows, the switches that this version lacks."""
    values = specification.values
    torch.set_num_threads(values["threads"])
    present, absent = known_switches(values["switches"])
    total = 4 + len(present)
    with (setup or opened)(specification) as ready:
        rows: list[Row] = []

        def add(row: Row) -> None:
            rows.append(row)
            progress("rows", len(rows), total, {})

        progress("rows", 0, total, {})
        method = Method(resolution=values["resolution"])
        complaint = _published_complaint(ready, method, values)
        add(_published(ready, "published loop", Method(), values, complaint))
        add(_published(ready, f"at {values['resolution']} px", method, values, complaint))
        settings = {switch["name"]: switch["off"] for switch in present}
        plain = replace(ready, base=as_reference(copy.deepcopy(cast(Any, ready.base))))
        with _dispatch.plain_pytorch():
            reference = _ours(plain, "our loop, plain PyTorch", settings, values, None)
        add(reference)
        add(_ours(ready, "+ our kernels", settings, values, reference["losses"]))
        for switch in present:
            settings[switch["name"]] = switch["on"]
            add(_ours(ready, f"+ {switch['name']}", settings, values, reference["losses"]))
    _compare_neighbours(rows)
    made = {
        f"seconds, {row['name']}": figures.spread(row["step_seconds"][row["warm_up"] :], unit="s")
        for row in rows
        if row["gate"] == "passed"
    }
    first, last = rows[0], rows[-1]
    if first["gate"] == last["gate"] == "passed":
        made["times_published"] = figures.spread([first["seconds"]["median"] / last["seconds"]["median"]])
    return figures.envelope(specification, made, rows, absent_switches=absent)


@contextlib.contextmanager
def opened(specification: Specification) -> Iterator[Setup]:
    """The real generator with networks, the bank from the cache or made now."""
    from guide_fast import pipeline
    from guide_fast._generators import attach_small, derived_folder
    from guide_fast._networks import loss_networks
    from guide_fast._request import given_latent

    values = specification.values
    base, networks = pipeline.load_generator(values["generator"]), loss_networks()
    attach_small(base, values["resolution"])
    bank = preservation_bank(
        base,
        networks,
        size=values["bank"],
        resolution=values["resolution"],
        seed=pipeline.BANK_SEED,
        cache_dir=derived_folder(),
    )
    w_u = given_latent(base, values["seed"], None).w
    yield Setup(base, networks, bank, w_u, ufo_target(base, w_u, Method().d), LtuConfig())


def known_switches(switches: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Those that LtuConfig has, the names of the others."""
    fields = {field.name for field in dataclasses.fields(LtuConfig)}
    present = [switch for switch in switches if switch["name"] in fields]
    return present, [switch["name"] for switch in switches if switch["name"] not in fields]


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for a reader of a terminal."""
    width = max(len(row["name"]) for row in result["rows"])
    for row in result["rows"]:
        if row["gate"] != "passed":
            yield f"{row['name']:{width}}  no speed: {row['gate']}"
            continue
        text = f"{row['name']:{width}}  {figures.said(row['seconds'])} a step"
        if row.get("times_before"):
            text += f", {figures.number(row['times_before'])} times as fast as the row above"
        yield text
    if result["absent_switches"]:
        yield f"not in this version, so not measured: {', '.join(result['absent_switches'])}"


def _published_complaint(setup: Setup, method: Method, values: Mapping[str, Any]) -> str | None:
    """Why the published loop must not be timed: its first loss is not that of the batched formulation."""
    losses = []
    for loop in (
        GuidePublished(setup.base, setup.networks, method),
        GuideCompiled(setup.base, setup.networks, method, compiled=False),
    ):
        loop.begin(setup.w_u, values["seed"])
        losses.append(loop.step()["loss"])
    return _difference(losses[:1], losses[1:], values["tolerance"])


def _published(setup: Setup, name: str, method: Method, values: Mapping[str, Any], complaint: str | None) -> Row:
    loop = GuidePublished(setup.base, setup.networks, method)
    loop.begin(setup.w_u, values["seed"])
    taken, losses = [], []
    for _ in range(values["published_steps"]):
        since = time.perf_counter()
        losses.append(loop.step()["loss"])
        taken.append(time.perf_counter() - since)
    return _row(PUBLISHED, name, taken, losses, complaint, {})


def _ours(
    setup: Setup, name: str, settings: Mapping[str, Any], values: Mapping[str, Any], wanted: list[float] | None
) -> Row:
    config = dataclasses.replace(
        LtuConfig(),
        steps=values["steps"],
        resolution=values["resolution"],
        seed=values["seed"],
        reached=NEVER,
        **settings,
    )
    moments: list[float] = []
    losses: list[float] = []

    def progress(stage: str, done: int, total: int, seen: Mapping[str, float]) -> None:
        if stage == "unlearning":
            moments.append(time.perf_counter())
            losses.extend([seen["loss"]] if done else [])

    unlearn(
        setup.base,
        setup.w_u,
        setup.w_t,
        networks=setup.networks,
        bank=setup.bank,
        config=config,
        progress=progress,
    )
    taken = [after - before for before, after in pairwise(moments)]
    complaint = None if wanted is None else _difference(losses, wanted, values["tolerance"])
    return _row(OURS, name, taken, losses, complaint, settings)


def _row(
    contender: str,
    name: str,
    taken: list[float],
    losses: list[float],
    complaint: str | None,
    settings: Mapping[str, Any],
) -> Row:
    warm_up = int(len(taken) > 1)
    row: Row = {"name": name, "contender": contender, "gate": complaint or "passed", "losses": losses}
    row |= {"settings": dict(settings), "warm_up": warm_up, "step_seconds": taken}
    return row | {"seconds": figures.spread(taken[warm_up:], unit="s")} if not complaint else row


def _difference(found: Sequence[float], wanted: Sequence[float], tolerance: float) -> str | None:
    """A complaint about the first loss that is off."""
    for step, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if not abs(a - b) <= tolerance * abs(b):
            return f"its loss at step {step} is {a:.6g}, {b:.6g} was expected (within {tolerance:g} of it)"
    return None


def _compare_neighbours(rows: list[Row]) -> None:
    """Each row that passed, against the row above it that passed."""
    above: Row | None = None
    for row in rows:
        if row["gate"] != "passed":
            continue
        if above is not None:
            row["times_before"] = above["seconds"]["median"] / row["seconds"]["median"]
        above = row
