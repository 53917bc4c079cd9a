"""One image of a generator, our path beside others in turn: the door to the benchmarks of whole generators."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from guide_fast.bench import figures
from guide_fast.bench.figures import Figure, said
from guide_fast.bench.specification import Specification
from guide_fast.errors import EvidenceError, GuideFastError

UNIT = "s"


def run(specification: Specification) -> dict[str, Any]:
    """Run the module that the benchmark names; the result with figures.

    Raises EvidenceError when contenders compute different things: then nothing was timed. GuideFastError where a
    contender cannot be had.
    """
    values = specification.values
    module = importlib.import_module(f"guide_fast.bench.{values['module']}")
    try:
        measured = module.measure(threads=values["threads"], rounds=values["rounds"], **values["options"])
    except SystemExit as stopped:  # a module of its own on the command line says so
        error = EvidenceError if "nothing is timed" in str(stopped) else GuideFastError
        raise error(f"{specification.name}: {stopped}") from None
    os.environ.setdefault("OMP_NUM_THREADS", str(values["threads"]))
    made = times(measured, values["rounds"])
    result = figures.envelope(specification, made, [], measured=measured)
    # the workers ran with the benchmark's threads; this process did not
    return result | {"provenance": result["provenance"] | {"threads": values["threads"]}}


def times(measured: Mapping[str, Any], rounds: int) -> dict[str, Figure]:
    """Figures of what `summarise` made: "<mode>: <contender>" in seconds, "<mode>, <contender> over ours"."""
    made: dict[str, Figure] = {}
    for mode in ("forward", "gradients"):
        for name, entry in measured[mode].items():
            if "seconds" in entry:
                made[f"{mode}: {name}"] = entry["seconds"] | {"n": rounds, "unit": UNIT}
                if name != "ours" and "times_ours" in entry:
                    made[f"{mode}, {name} over ours"] = entry["times_ours"] | {"n": rounds, "unit": ""}
        if "peak_bytes" in measured[mode]:
            share = measured[mode]["peak_bytes"]["ours_of_eager"]
            made[f"{mode}, memory over eager's"] = figures.spread([share])
    return made


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for a reader of a terminal."""
    yield f"{result['title']}, {result['specification']['threads']} threads of {result['provenance']['processor']}"
    for name, figure in result["figures"].items():
        yield f"{name}: {said(figure)}"
