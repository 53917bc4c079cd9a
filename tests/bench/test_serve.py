"""The benchmark of servers: nothing is timed before the images agree, what is said follows from what was answered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from guide_fast.bench import report, serve
from guide_fast.bench.specification import Specification, load
from guide_fast.errors import EvidenceError, GuideFastError

SPEED = {"eager": 1.0, "ours": 6.0, "ours_streams": 5.0, "onnxruntime": 3.0, "openvino": 4.0, "openvino_streams": 5.0}


class FakeWorker:
    """Answers as a server of a known speed would."""

    off: ClassVar[dict[str, float]] = {}
    missing: tuple[str, ...] = ()
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    wrong = 0

    def __init__(self, module: str, name: str, folder: Path, *, threads: int, **options: Any) -> None:
        assert module == serve.MODULE
        self.name, self.options, self.closed = name, options, False

    def ask(self, line: str) -> Any:
        said = json.loads(line)
        self.asked.append((self.name, {key: value for key, value in said.items() if key != "z"}))
        if self.name in self.missing:
            return {"error": f"{self.name} is not installed"}
        speed = SPEED[self.name]
        if said["ask"] == "images":
            np.save(said["path"], np.full((2, 3, 4, 4), self.off.get(self.name, 0.0), np.float32))
            return {"resolution": 32}
        if said["ask"] == "capacity":
            return {"images_per_second": speed}
        if said["ask"] == "load":
            late = said["rate"] > speed
            return {"latencies": [1 / speed] * 8 + [None if late else 2 / speed] * 2}
        return {
            "exchange_seconds": [1e-6, 2e-6],
            "prepare_seconds": [0.1, 0.2],
            "around": [0.3],
            "apart": [0.2, 0.2],
            "versions": ["a", "b"],
            "wrong": self.wrong,
        }

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    class Servers(FakeWorker):
        asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    monkeypatch.setattr(serve, "Worker", Servers)
    monkeypatch.setattr(serve, "_exported", lambda *_: None)
    monkeypatch.setattr(serve, "_delta", lambda path: None)
    return Servers


@pytest.fixture
def specification() -> Specification:
    return load("serve").changed(rounds=2, loads=[0.5, 0.95])


def test_figures_follow_from_the_answers(servers: type[FakeWorker], specification: Specification) -> None:
    result = serve.run(specification)
    made = result["figures"]
    assert made["images a second: ours"]["median"] == 6.0 and made["images a second: ours"]["n"] == 2
    assert made["images a second over openvino"]["median"] == pytest.approx(1.5)
    assert made["p50 at 0.5: ours"]["median"] == pytest.approx(1000 / 6)
    assert made["p50 at 0.5 over openvino"]["median"] == pytest.approx(4 / 6)
    assert made["p95 at 0.5: openvino"]["median"] == pytest.approx(500)
    assert "p95 at 0.95: openvino" not in made  # a tenth of its requests was not served
    assert made["share served at 0.95: openvino"]["median"] == pytest.approx(0.8)
    assert made["exchange: ours"]["max"] == pytest.approx(2e-3) and "exchange: openvino" not in made
    reached = {goal["figure"]: goal["reached"] for goal in result["goals"]}
    assert reached["images a second over openvino"] is True and reached["exchange: ours"] is True
    assert result["provenance"]["threads"] == 2 and all(row["gate"] == "passed" for row in result["rows"])


def test_server_that_served_too_little_is_not_offered_more(
    servers: type[FakeWorker], specification: Specification, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = FakeWorker.ask

    def swamped(self: FakeWorker, line: str) -> Any:
        answer = ask(self, line)
        if self.name == "eager" and "latencies" in answer:
            answer["latencies"] = [2.0] * 4 + [None] * 6
        return answer

    monkeypatch.setattr(FakeWorker, "ask", swamped)
    result = serve.run(specification)
    loads = [(row["contender"], row["load"]) for row in result["rows"] if "load" in row]
    assert ("eager", 0.5) in loads and ("eager", 0.95) not in loads and ("openvino", 0.95) in loads
    assert result["too_much"] == {"eager": 0.5}
    offered = [said["rate"] for name, said in servers.asked if name == "eager" and said["ask"] == "load"]
    assert offered == pytest.approx([3.0, 3.0])  # in both rounds, so that both are in its figures
    assert any("more than 0.5 of the quickest's" in line and "eager" in line for line in serve.words(result))


def test_every_server_is_offered_the_same_at_the_same_times(
    servers: type[FakeWorker], specification: Specification
) -> None:
    serve.run(specification)
    loads = [(name, said) for name, said in servers.asked if said["ask"] == "load"]
    by_name = {name: [said for other, said in loads if other == name] for name in SPEED}
    assert all(said == by_name["ours"] for said in by_name.values())
    assert [said["rate"] for said in by_name["ours"]] == pytest.approx([3.0, 5.7] * 2)  # of the quickest: ours
    assert [said["seed"] for said in by_name["ours"]] == [0, 0, 1, 1]
    assert [name for name, _ in loads[: len(SPEED)]] == list(SPEED)  # in turn
    assert [name for name, said in servers.asked if said["ask"] == "swaps"] == ["ours", "onnxruntime"]


def test_nothing_is_timed_when_images_differ(servers: type[FakeWorker], specification: Specification) -> None:
    servers.off = {"openvino": 0.01}
    with pytest.raises(EvidenceError, match=r"of openvino differ by 0\.01, 0\.002 is allowed: nothing was timed"):
        serve.run(specification)
    servers.off = {"onnxruntime": math.nan}
    with pytest.raises(EvidenceError, match="images of onnxruntime differ by nan"):
        serve.run(specification)
    assert {said["ask"] for _, said in servers.asked} == {"images"}


def test_server_that_cannot_start_is_left_out_by_name(servers: type[FakeWorker], specification: Specification) -> None:
    servers.missing = ("openvino", "openvino_streams")
    result = serve.run(specification)
    assert result["left_out"] == {name: f"{name} is not installed" for name in servers.missing}
    assert any("left out: openvino: openvino is not installed" in line for line in serve.words(result))
    goals = {goal["figure"]: goal["reached"] for goal in result["goals"]}
    assert goals["images a second over openvino"] is None  # open, not reached
    servers.missing = ("ours",)
    with pytest.raises(GuideFastError, match="ours cannot be served: ours is not installed"):
        serve.run(specification)


def test_image_of_no_version_fails_the_gate(servers: type[FakeWorker], specification: Specification) -> None:
    servers.wrong = 3
    gates = [row["gate"] for row in serve.run(specification)["rows"] if "swaps" in row]
    assert gates == ["3 images are not of the version that they claim"] * 2


def test_result_is_written_with_pictures(
    servers: type[FakeWorker], specification: Specification, tmp_path: Path
) -> None:
    result = serve.run(specification)
    files = report.write(result, tmp_path)
    assert [path.name for path in files] == ["serve.json", "serve.md", "serve.png", "serve.dark.png"]
    assert "| images a second: ours | 6.00 1/s" in (tmp_path / "serve.md").read_text()
    panels = report.PANELS["serve"](result)
    assert [panel.title.partition(",")[0] for panel in panels] == [
        "images a second",
        "p95 of the latency",
        "p95 of the latency",
        "while weights are exchanged",
    ]
    late = {bar.label: bar for bar in panels[2].bars}["openvino"]
    assert late.at_least and late.value == 5000 and late.note.startswith("80% served")
    lines = list(serve.words(result))
    assert any("5.70 images a second asked of eager: p50 1000 ms, p95 not served" in line for line in lines)


def test_every_contender_of_the_file_is_a_session_that_there_is() -> None:
    from guide_fast.bench.serve_contender import SESSIONS

    values = load("serve").values
    assert values["ours"] in values["contenders"]
    assert {contender["session"] for contender in values["contenders"].values()} == {*SESSIONS}


def test_delta_of_the_benchmark_moves_modulations_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tiny import tiny_generator

    from guide_fast.artifacts import Delta
    from guide_fast.models import loading

    monkeypatch.setattr(loading, "load", lambda name: tiny_generator())
    serve._delta(tmp_path / "delta.safetensors")
    names = Delta.load(tmp_path / "delta.safetensors").tensors
    assert names and all(".modulation." in name for name in names)
