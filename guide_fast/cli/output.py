"""What a command says: its result on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import math
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import typer

from guide_fast.cli.bars import reporter
from guide_fast.cli.signals import TERMINATED, was_terminated
from guide_fast.errors import GuideFastError

PROGRAM = "guide-fast"
INTERRUPTED = 130
NOTHING_TO_RESUME = "stopped with nothing to resume; run the same command to start again"


class InterruptedRun(GuideFastError):
    """Ctrl-C or SIGTERM; the message says how to go on."""

    exit_code = INTERRUPTED


@dataclass(frozen=True)
class Session:
    """One call of the program."""

    arguments: tuple[str, ...]  # after the program's name
    stdout: TextIO


class Output:
    """A command's voice, used as a context manager around its work.

    `progress` fits the library's progress contract. Messages of the library's log become notes. Ctrl-C or SIGTERM
    inside becomes an InterruptedRun that says `on_interrupt`.
    """

    def __init__(self, context: typer.Context, *, json: bool, quiet: bool) -> None:
        self.on_interrupt = "stopped; nothing was written"
        self.progress = reporter(sys.stderr, quiet=quiet)
        self._session: Session = context.obj
        self._json = json
        self._log = _Notes(self)

    @property
    def way_on(self) -> str:
        """How to go on after Ctrl-C left a state."""
        arguments = [argument for argument in self._session.arguments if argument != "--resume"]
        return f"stopped; continue with `{shlex.join([PROGRAM, *arguments, '--resume'])}`"

    def note(self, text: str) -> None:
        """Say `text` on stderr, unless --quiet."""
        self.progress.note(one_line(text))

    def problem(self, text: str) -> None:
        """Say what failed on stderr; with --json the payload has to say it."""
        if not self._json:
            self.progress.close()
            print(f"{PROGRAM}: {one_line(text)}", file=sys.stderr)

    def result(self, lines: Iterable[str], payload: Mapping[str, Any]) -> None:
        """Say the outcome on stdout: `lines`, or `payload` as one JSON object with --json."""
        self.progress.close()
        print(as_json(payload) if self._json else "\n".join(lines), file=self._session.stdout, flush=True)

    def __enter__(self) -> Output:
        logger = logging.getLogger("guide_fast")
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("guide_fast").removeHandler(self._log)
        self.progress.close()
        if isinstance(error, KeyboardInterrupt):
            stopped = InterruptedRun(self.on_interrupt)
            if was_terminated(error):
                stopped.exit_code = TERMINATED
            raise stopped from error


class _Notes(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(record.getMessage())


def as_json(payload: Mapping[str, Any]) -> str:
    """One JSON object; numbers that JSON lacks (NaN, infinity) become null, paths become text."""
    return json.dumps(_plain(payload), ensure_ascii=False)


def one_line(text: str) -> str:
    """`text` without line breaks."""
    return " ".join(text.split())


def described(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Nested plain values as lines a person reads."""
    lines = []
    for key, value in values.items():
        name = f"{indent}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            lines += [f"{name}:", *described(value, indent + "  ")]
        elif isinstance(value, list | tuple):
            lines.append(f"{name}: {', '.join(map(str, value)) or 'none'}")
        else:
            lines.append(f"{name}: {'none' if value is None else value}")
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
