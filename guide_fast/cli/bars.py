"""Progress of long stages on stderr: bars at a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

WORTH_SAYING = 2.0  # seconds; a shorter stage is not mentioned in plain lines
EVERY = 10.0  # seconds between two plain lines


class Reporter(Protocol):
    """A progress callback that also carries notes."""

    def __call__(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """As `guide_fast.progress.Progress`."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...

    def close(self) -> None:
        """Finish; may be called twice."""
        ...


def reporter(stream: TextIO, *, quiet: bool) -> Reporter:
    """What suits `stream`."""
    if quiet:
        return Silence()
    return Bars(stream) if stream.isatty() else Lines(stream)


class Silence:
    """Says nothing."""

    def __call__(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line when a stage has run for a while, then now and then, then at its end."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage = ""
        self._started = self._said = 0.0
        self._first = 0  # a resumed stage does not start from nothing

    def __call__(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """As `guide_fast.progress.Progress`."""
        now = self._clock()
        if done == 0 or stage != self._stage:
            self._stage, self._started, self._said, self._first = stage, now, now - EVERY, done
        elapsed = now - self._started
        if elapsed < WORTH_SAYING or (done < total and now - self._said < EVERY):
            return
        self._said = now
        here = done - self._first
        left = f"{elapsed / here * (total - done):.0f} s left" if here and done < total else f"{elapsed:.0f} s"
        self.note(", ".join(part for part in (f"{stage}: {done}/{total}", numbers(values), left) if part))

    def note(self, text: str) -> None:
        """Say one line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class Bars:
    """One bar per stage with its numbers, the time left beside them."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[numbers]}"),
            console=Console(file=stream),
            refresh_per_second=4,
            redirect_stdout=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """As `guide_fast.progress.Progress`."""
        if done == 0 or stage not in self._tasks:
            self._progress.start()
            self._tasks[stage] = self._progress.add_task(stage, total=total, numbers="")
        self._progress.update(self._tasks[stage], completed=done, total=total, numbers=numbers(values))

    def note(self, text: str) -> None:
        """Say one line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._progress.stop()


def numbers(values: Mapping[str, float]) -> str:
    """`loss 0.123, similarity 0.45`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
