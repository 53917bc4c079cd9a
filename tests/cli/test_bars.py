"""Progress on stderr, at a terminal and elsewhere."""

from __future__ import annotations

import io

from guide_fast.cli.bars import Bars, Lines, Silence, reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(steps: int, seconds: float) -> list[str]:
    """The lines of a stage of `steps` steps that take `seconds` each."""
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines("unlearning", 0, steps, {})
    for step in range(1, steps + 1):
        clock.now += seconds
        lines("unlearning", step, steps, {"loss": 1 / step})
    return stream.getvalue().splitlines()


def test_short_stage_is_not_mentioned() -> None:
    assert said(steps=10, seconds=0.1) == []


def test_long_stage_says_loss_with_time_left() -> None:
    assert said(steps=4, seconds=2.5) == [
        "unlearning: 1/4, loss 1, 8 s left",
        "unlearning: 4/4, loss 0.25, 10 s",
    ]


def test_resumed_stage_is_timed_from_where_it_went_on() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines("invert", 58, 100, {})
    clock.now += 5
    lines("invert", 60, 100, {})
    assert stream.getvalue() == "invert: 60/100, 100 s left\n"


def test_long_stage_is_mentioned_every_ten_seconds() -> None:
    assert len(said(steps=100, seconds=1.0)) == 11


def test_stages_are_timed_apart() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    for stage in ("aligning", "inverting"):
        lines(stage, 0, 1, {})
        clock.now += 1.5
        lines(stage, 1, 1, {})
    assert stream.getvalue() == ""


def test_terminal_shows_a_bar_with_numbers() -> None:
    stream = Terminal()
    bars = Bars(stream)
    bars("unlearning", 0, 2, {})
    bars("unlearning", 2, 2, {"loss": 0.125})
    bars.note("a [note]")
    bars.close()
    bars.close()
    assert all(part in stream.getvalue() for part in ("unlearning", "2/2", "loss 0.125", "a [note]"))


def test_stream_decides_what_is_shown() -> None:
    assert isinstance(reporter(Terminal(), quiet=False), Bars)
    assert isinstance(reporter(io.StringIO(), quiet=False), Lines)
    assert isinstance(reporter(Terminal(), quiet=True), Silence)
