"""What lets a stage be stopped at any moment, then continue where it was."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from guide_fast.artifacts import read_safetensors, tensors_sha256, write_safetensors
from guide_fast.errors import GuideFastError, IntegrityError, UsageError


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done, for what must happen as a whole.

    Python interrupts the main thread only, where alone handlers can be set; in other threads there is nothing to do,
    nor is there where a handler was installed from C, which could not be put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if handler is not None}
    for number in handlers:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


@contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """Call `save` when the block is done or stopped (Ctrl-C, SIGTERM, memory); these wait for it.

    Not after an error of ours: going on from there would end in the same error.
    """
    failed = False
    try:
        yield
    except GuideFastError:
        failed = True
        raise
    finally:
        if not failed:
            with uninterrupted():
                save()


def write_state(
    path: Path, kind: str, tensors: Mapping[str, Tensor], request: Mapping[str, Any], done: Mapping[str, Any]
) -> None:
    """Write atomically where a stage was stopped: `tensors` with the plain values `done`, for `request` only.

    Raises GuideFastError when the disk refuses.
    """
    content = {"request": {**this_version(), **request}, "done": done, "sha256": _sha256(tensors, done)}
    write_safetensors(path, tensors, kind, content)


def read_state(path: Path, kind: str, request: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors with the plain values of a file that `write_state` wrote, every bit of them.

    Raises UsageError when there is none or it was left by another request or version, IntegrityError when its bytes are
    not the ones that were written.
    """
    tensors, content = read_safetensors(path, kind)
    content = content if isinstance(content, dict) else {}
    check_request(path, content.get("request"), {**this_version(), **request})
    done = content.get("done")
    # safetensors checks its header only: a flipped bit in a tensor would read as a number like any other
    if not isinstance(done, dict) or content.get("sha256") != _sha256(tensors, done):
        raise IntegrityError(f"the bytes of {path} are damaged; start anew without --resume")
    return tensors, done


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


def this_version() -> dict[str, str]:
    """The part of a request that a user has no say in: another version may compute otherwise."""
    try:
        return {"guide-fast": metadata.version("guide-fast")}
    except metadata.PackageNotFoundError:
        return {"guide-fast": "not installed"}


def _sha256(tensors: Mapping[str, Tensor], done: Mapping[str, Any]) -> str:
    said = json.dumps(done, sort_keys=True)
    return hashlib.sha256(f"{tensors_sha256(tensors)} {said}".encode()).hexdigest()


def _said(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a sha256
        return value[:12]
    return "none" if value is None else str(value)
