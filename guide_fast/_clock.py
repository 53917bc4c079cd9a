"""Seconds of each stage, over all the sessions that a run takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from guide_fast._run_files import SECONDS
from guide_fast.errors import GuideFastError
from guide_fast.resumption import uninterrupted
from guide_fast.run_folder import write_json


class StageClock:
    """Used as a context manager around a run; starts from what the stopped run in `resumed` had spent.

    When the run ends by an exception, the seconds go to the folder given to `keep_in`, if any.
    """

    def __init__(self, resumed: Path | None, now: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = _read(resumed / SECONDS) if resumed is not None else {}
        self._now, self._since = now, now()
        self._stage: str | None = None
        self._folder: Path | None = None

    def begin(self, stage: str) -> None:
        """From now on time is spent on `stage`."""
        self._end()
        self._stage, self._since = stage, self._now()

    def keep_in(self, folder: Path) -> None:
        """The run's folder, from the moment when there is something in it to resume."""
        self._folder = folder

    def seconds(self) -> dict[str, float]:
        """Of every stage so far; ends the one at hand."""
        self._end()
        return dict(self._seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._folder is not None:
            with uninterrupted():
                write_json(self._folder / SECONDS, self.seconds())

    def _end(self) -> None:
        if self._stage is not None:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + self._now() - self._since
        self._stage = None


def _read(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    try:
        return {str(stage): float(spent) for stage, spent in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise GuideFastError(f"{file} cannot be read ({error}); start anew without --resume") from None
