"""What lets a stage be stopped at any moment, then continue where it was."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from guide_fast.errors import IntegrityError, UsageError


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, for what must happen as a whole.

    Python interrupts the main thread only, where alone handlers can be set; in other threads there is nothing to do,
    nor is there where a handler was installed from C, which could not be put back.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


def check_request(path: Path, before: Any, now: Mapping[str, Any]) -> None:
    """Raise UsageError when the state at `path` was left by another request, naming the first difference.

    `before` is what was read from the file, `now` has plain values. Raises IntegrityError when `before` is no request.
    """
    if not isinstance(before, dict):
        raise IntegrityError(f"{path} does not say what it was asked for; start anew without --resume")
    now = json.loads(json.dumps(now))
    for name in [*now, *(name for name in before if name not in now)]:
        if name not in before or name not in now or before[name] != now[name]:
            then, today = _said(before.get(name)), _said(now.get(name))
            raise UsageError(
                f"{path} was left by a run with another {name} ({then} then, {today} now); "
                "ask for the same, or start anew without --resume"
            )


def _said(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a sha256
        return value[:12]
    return "none" if value is None else str(value)
