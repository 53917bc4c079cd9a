"""`bench forget` on a generator of 32 px: ratios at equal quality, lower bounds marked, rows that survive a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from stopping import NETWORKS
from tiny import CONFIG, TinyIdentity, TinyPerceptual, tiny_generator

from guide_fast import _networks, pipeline
from guide_fast.bench import forget
from guide_fast.bench.baselines.guide_method import Method
from guide_fast.bench.equal_quality import EqualQuality, Judges
from guide_fast.bench.forget_figures import person_figures, words
from guide_fast.bench.specification import Specification, load
from guide_fast.errors import UsageError
from guide_fast.ltu import Networks

METHOD = {"steps": 6, "lr": 1e-3, "d": 4.0, "radius": 2.0}
REQUIRED = (
    "ratio_published",
    "ratio_compiled",
    "seconds_per_person",
    "seconds_next_person",
    "forgotten",
    "stranger_mean",
    "stranger_std",
    "retained",
    "fd_pre",
)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=NETWORKS[name]))
    monkeypatch.setattr(_networks, "load_perceptual", TinyPerceptual)
    # its evidence holds: what the tiny networks see decides nothing here
    monkeypatch.setattr(pipeline, "passed", lambda metrics: [])
    monkeypatch.setattr(
        forget,
        "LOOPS",
        forget.LOOPS | {"guide_compiled": lambda *a: forget.GuideCompiled(*a, compiled=False)},
    )


@contextlib.contextmanager
def tiny_setup(specification: Specification) -> Iterator[forget.Setup]:
    networks = Networks(TinyIdentity(), TinyPerceptual())
    judges = Judges(*_networks.judges(), networks.perceptual)
    with forget.cold_home() as home:
        yield forget.Setup(tiny_generator(), networks, judges, CONFIG, pipeline.forget, home)


def specification(cap: float = 1e-6, **values: Any) -> Specification:
    made = load("forget")
    baselines = {name: {"loop": f"guide_{name}", "cap": cap, "method": METHOD} for name in ("published", "compiled")}
    return made.changed(
        **{"seeds": [3, 4], "threads": 1, "evaluate": dataclasses.asdict(CONFIG.evaluate), "baselines": baselines}
        | values
    )


def test_result_has_every_figure_with_its_spread(tmp_path: Path) -> None:
    result = forget.run(specification(), tmp_path, setup=tiny_setup)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for name in REQUIRED:
        assert result[name]["p20"] <= result[name]["median"] <= result[name]["p80"], name
        assert len(result[name]["values"]) == 2
        assert result["figures"][name] == result[name]
    assert {goal["figure"] for goal in result["goals"]} >= {"ratio_published", "ratio_compiled", "share_next_person"}
    assert result["provenance"]["commit"] and result["provenance"]["clocks"]["cpu"]


def test_stopped_baseline_is_a_lower_bound_in_data_and_in_words(tmp_path: Path) -> None:
    result = forget.run(specification(cap=1e-6, id_noise=-9.0), tmp_path, setup=tiny_setup)
    assert result["ratio_published"]["censored"] is True
    their = result["rows"][0]["baselines"]["published"]
    assert (their["steps"], their["stopped"]) == (1, "time")
    assert their["ratio"] == their["seconds"] / result["rows"][0]["ours"]["seconds_next"]
    assert {"forgotten", "retained", "fd_pre"} <= their.keys()
    said = "\n".join(words(result))
    assert "published takes at least" in said and "2 of 2 were stopped before they were as good as ours" in said


def test_baseline_that_gets_there_has_a_plain_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EqualQuality, "__call__", lambda self, student, steps: (steps == 2, {}))
    result = forget.run(specification(cap=1e9, seeds=[3]), tmp_path, setup=tiny_setup)
    their = result["rows"][0]["baselines"]["compiled"]
    assert (their["steps"], their["stopped"], their["censored"]) == (2, "reached", False)
    assert result["ratio_compiled"]["censored"] is False
    assert "at least" not in next(line for line in words(result) if line.startswith("compiled"))


def test_no_speed_where_the_evidence_falls_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "passed", lambda metrics: ["The person is not forgotten."])
    result = forget.run(specification(seeds=[3]), tmp_path, setup=tiny_setup)
    assert result["ratio_published"]["median"] is None and result["rows"][0]["baselines"] == {}
    assert {goal["reached"] for goal in result["goals"] if goal["figure"].startswith("ratio")} == {None}
    said = "\n".join(words(result))
    assert "no speed, for its evidence falls short: The person is not forgotten." in said
    assert "times as long" not in said


def test_stopped_run_goes_on_with_the_next_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = forget._person
    asked: list[int] = []

    def person(*arguments: Any) -> Any:
        asked.append(arguments[3])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return begun(*arguments)

    monkeypatch.setattr(forget, "_person", person)
    with pytest.raises(KeyboardInterrupt):
        forget.run(specification(), tmp_path, setup=tiny_setup)
    kept = json.loads((tmp_path / "persons" / "seed-3.json").read_text())
    result = forget.run(specification(), tmp_path, setup=tiny_setup)
    assert asked == [3, 4, 4]
    assert result["rows"][0] == kept


def test_rows_of_other_settings_are_measured_anew(tmp_path: Path) -> None:
    forget.run(specification(seeds=[3]), tmp_path, setup=tiny_setup)
    path = tmp_path / "persons" / "seed-3.json"
    before = path.read_bytes()
    forget.run(specification(seeds=[3]), tmp_path, setup=tiny_setup)
    assert path.read_bytes() == before
    forget.run(specification(seeds=[3], id_noise=0.25), tmp_path, setup=tiny_setup)
    assert path.read_bytes() != before


def test_first_person_pays_for_the_bank_each_time(tmp_path: Path) -> None:
    begun: list[str] = []

    def progress(stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if done == 0:
            begun.append(stage)

    result = forget.run(specification(), tmp_path, setup=tiny_setup, progress=progress)
    for row in result["rows"]:
        ours = row["ours"]
        assert ours["seconds_first"] == ours["stages_first"]["bank"] + ours["stages_first"]["unlearning"]
    # once for a person's first run, read back in the second
    assert begun.count("preservation bank") == len(result["rows"])
    assert begun.count("unlearning") == 2 * len(result["rows"])


def test_unknown_loop_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    best = {"loop": "guide_best", "cap": 1.0, "method": {"steps": 1}}
    broken = specification(baselines={"best": best}, race=["best"])
    with pytest.raises(UsageError, match=r"baselines\.best\.loop = 'guide_best' is unknown"):
        forget.run(broken, tmp_path, setup=tiny_setup)


def test_only_the_named_baselines_race(tmp_path: Path) -> None:
    result = forget.run(specification(seeds=[3], race=["compiled"]), tmp_path, setup=tiny_setup)
    assert "ratio_compiled" in result and "ratio_published" not in result
    with pytest.raises(UsageError, match="there is no baseline best; choose of published, compiled"):
        forget.run(specification(race=["best"]), tmp_path, setup=tiny_setup)


@pytest.mark.parametrize("name", load("forget").values["baselines"])
def test_methods_of_the_file_are_methods(name: str) -> None:
    baseline = load("forget").values["baselines"][name]
    assert baseline["loop"] in forget.LOOPS and Method(**baseline["method"]).steps == 1000


def test_quality_is_equal_only_when_the_person_is_gone_and_everybody_else_kept(tmp_path: Path) -> None:
    base = tiny_generator()
    source = pipeline.forget(base, seed=3, config=CONFIG).source
    with tiny_setup(specification()) as setup:

        def good(noise: float, **ours: float) -> tuple[bool, dict[str, float]]:
            wanted = {"forgotten": 2.0, "forgotten_person": 2.0, "retained": -2.0} | ours
            quality = EqualQuality(
                base,
                source,
                wanted,
                judges=setup.judges,
                config=CONFIG.evaluate,
                noise=noise,
                recheck=1,
                cache_dir=None,
            )
            return quality(tiny_generator(), 1)

        reached, seen = good(0.0)
        assert reached and seen["fd_pre"] == pytest.approx(0.0, abs=1e-6)
        assert not good(0.0, forgotten_person=0.5)[0], "the person looks as before"
        assert not good(0.0, forgotten=0.5)[0], "the neighbours look as before"
        assert good(0.6, forgotten_person=0.5, forgotten=0.5)[0]
        assert not good(0.0, retained=1.5)[0], "bystanders are less alike than ours"


def test_spread_of_ratios_covers_passing_people_only() -> None:
    ours = dict.fromkeys(("seconds_first", "seconds_next", "forgotten", "stranger_mean", "stranger_std"), 1.0)
    ours |= {"retained": 1.0, "retained_p05": 1.0, "fd_pre": 1.0}
    theirs = {"ratio": 4.0, "ratio_first": 2.0, "censored": True, "step_seconds": [1.0], "seconds": 4.0}
    theirs |= {"forgotten": 0.9, "retained": 1.0, "fd_pre": 0.1}
    rows = [
        {"ours": ours, "gate": "passed", "baselines": {"published": theirs}},
        {"ours": ours, "gate": "no", "baselines": {}},
    ]
    made = person_figures(rows, ["published"])
    assert made["ratio_published"]["n"] == 1 and made["forgotten"]["n"] == 2
    assert made["ratio_published"]["censored_values"] == [True]
