"""What a run has spent, over all the sessions that it takes: seconds of each stage, memory."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from guide_fast._run_files import SPENT
from guide_fast.resumption import uninterrupted
from guide_fast.run_folder import peak_memory_bytes, write_json

_log = logging.getLogger(__name__)


class StageClock:
    """Used as a context manager around a run; starts from what the stopped run in `resumed` had spent.

    When the run ends by an exception, what it spent goes to the folder given to `keep_in`, if any. Neither a file that
    cannot be read nor one that cannot be written stops a run: it costs the count, with a warning in the log.
    """

    def __init__(self, resumed: Path | None, now: Callable[[], float] = time.perf_counter) -> None:
        self._seconds, self._peak = _read(resumed / SPENT) if resumed is not None else ({}, 0)
        self._now, self._since = now, now()
        self._stage: str | None = None
        self._folder: Path | None = None

    def begin(self, stage: str) -> None:
        """From now on time is spent on `stage`."""
        self._end()
        self._stage, self._since = stage, self._now()

    def keep_in(self, folder: Path | None) -> None:
        """The run's folder, as long as there is something in it to resume."""
        self._folder = folder

    def seconds(self) -> dict[str, float]:
        """Of every stage so far; ends the one at hand."""
        self._end()
        return dict(self._seconds)

    def peak_memory_bytes(self) -> int:
        """The largest resident size of any session so far."""
        return max(self._peak, peak_memory_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._folder is None:
            return
        with uninterrupted():
            try:
                spent = {"seconds": self.seconds(), "peak_memory_bytes": self.peak_memory_bytes()}
                write_json(self._folder / SPENT, spent)
            except Exception as lost:  # `error` is what the caller has to hear of
                _log.warning("the seconds of this session are lost: %s", lost)

    def _end(self) -> None:
        if self._stage is not None:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + self._now() - self._since
        self._stage = None


def _read(file: Path) -> tuple[dict[str, float], int]:
    if not file.is_file():
        return {}, 0
    try:
        spent = json.loads(file.read_text(encoding="utf-8"))
        seconds = {str(stage): float(value) for stage, value in spent["seconds"].items()}
        if not all(map(math.isfinite, seconds.values())):
            raise ValueError("it holds no finite numbers")
        return seconds, int(spent["peak_memory_bytes"])
    except Exception as error:  # a damaged file says so in many ways
        _log.warning("%s cannot be read (%s); only the seconds from now on count", file, error)
        return {}, 0
