"""What a run spent counts all its sessions, and never stands in the way of the run."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from stopping import forget, stop
from stopping import generator as generator
from stopping import photo as photo
from stopping import stand_ins as stand_ins  # fixtures

from guide_fast import _clock
from guide_fast._clock import StageClock
from guide_fast.errors import GuideFastError
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import SPENT


class Clock:
    """A second between any two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_clock_adds_sessions(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StageClock(None, Clock()) as clock:
        clock.keep_in(tmp_path)
        clock.begin("inversion")
        clock.begin("bank")
        raise KeyboardInterrupt
    with StageClock(tmp_path, Clock()) as clock:
        clock.begin("bank")
        clock.begin("unlearning")
        assert clock.seconds() == {"inversion": 1.0, "bank": 2.0, "unlearning": 1.0}


def test_clock_keeps_the_largest_memory_of_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for peak in (5, 9, 7):
        monkeypatch.setattr(_clock, "peak_memory_bytes", lambda peak=peak: peak)
        with pytest.raises(KeyboardInterrupt), StageClock(tmp_path) as clock:
            clock.keep_in(tmp_path)
            raise KeyboardInterrupt
    monkeypatch.setattr(_clock, "peak_memory_bytes", lambda: 6)
    assert StageClock(tmp_path).peak_memory_bytes() == 9


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("stops", [True, False])
def test_clock_writes_only_for_a_run_that_stops_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool, stops: bool
) -> None:
    monkeypatch.chdir(tmp_path)

    def session() -> None:
        with StageClock(None) as clock:
            clock.keep_in(tmp_path)
            if not named:
                clock.keep_in(None)
            if stops:
                raise KeyboardInterrupt

    if stops:
        with pytest.raises(KeyboardInterrupt):
            session()
    else:
        session()
    assert [file.name for file in tmp_path.iterdir()] == ([SPENT] if named and stops else [])


@pytest.mark.parametrize("error", [KeyboardInterrupt("pressed"), GuideFastError("cannot write delta.safetensors")])
def test_seconds_that_cannot_be_written_mask_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", refuse)
    with caplog.at_level(logging.WARNING), pytest.raises(type(error)) as caught, StageClock(None) as clock:
        clock.keep_in(tmp_path)
        raise error
    assert caught.value is error
    assert "seconds of this session are lost" in caplog.text


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "{}", '{"seconds": {"bank": "x"}, "peak_memory_bytes": 1}', '{"seconds": {"bank": NaN}}', b"\xff"],
)
def test_damaged_seconds_count_from_now_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | bytes
) -> None:
    (tmp_path / SPENT).write_bytes(content.encode() if isinstance(content, str) else content)
    with caplog.at_level(logging.WARNING):
        assert StageClock(tmp_path).seconds() == {}
    assert "only the seconds from now on count" in caplog.text


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("stage", "done", "spent"), [("invert", 4, "inversion"), ("unlearning", 2, "unlearning")])
def test_metrics_of_a_resumed_run_count_all_sessions(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, stage: str, done: int, spent: str
) -> None:
    stop(generator, photo, tmp_path / "run", stage, done)
    file = tmp_path / "run" / SPENT
    before = json.loads(file.read_text())["seconds"]
    assert before[spent] > 0
    file.write_text(json.dumps({"seconds": before | {spent: before[spent] + 1000}, "peak_memory_bytes": 1 << 50}))
    metrics = forget(generator, photo, tmp_path / "run", resume=True).metrics
    assert metrics["seconds_by_stage"][spent] > 1000
    assert metrics["seconds"] == metrics["seconds_by_stage"]["unlearning"]
    assert metrics["peak_memory_bytes"] == 1 << 50


@pytest.mark.usefixtures("stand_ins")
def test_damaged_seconds_do_not_keep_a_run_from_going_on(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "unlearning", 2)
    (tmp_path / "run" / SPENT).write_text("{")
    assert forget(generator, photo, tmp_path / "run", resume=True).metrics["seconds"] > 0


@pytest.mark.usefixtures("stand_ins")
def test_starting_anew_forgets_the_seconds_of_the_stopped_run(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    stop(generator, photo, tmp_path / "run", "invert", 4)
    spent = {"seconds": {"inversion": 1000.0}, "peak_memory_bytes": 1 << 50}
    (tmp_path / "run" / SPENT).write_text(json.dumps(spent))
    metrics = forget(generator, photo, tmp_path / "run").metrics
    assert metrics["seconds_by_stage"]["inversion"] < 1000
    assert metrics["peak_memory_bytes"] < 1 << 50
