"""SIGTERM stops a run as Ctrl-C does, with an exit code of its own; the run continues to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from guide_fast.cli.output import INTERRUPTED
from guide_fast.cli.signals import TERMINATED, Terminated, terminable, was_terminated
from guide_fast.resumption import uninterrupted
from guide_fast.run_folder import STATE

TESTS = Path(__file__).resolve().parent.parent


def start(home: Path, out: Path, step: int, *arguments: str) -> subprocess.Popen[str]:
    paths = [str(TESTS), str(TESTS / "kernels"), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "GUIDE_FAST_HOME": str(home)}
    command = [sys.executable, str(TESTS / "stopped_process.py"), str(out), str(out) + ".marker", str(step), *arguments]
    return subprocess.Popen(
        command,
        env=environment | {"GUIDE_FAST_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with SIGINT ignored, which a child inherits
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)])
def test_process_that_is_stopped_continues_to_the_same_bytes(tmp_path: Path, number: signal.Signals, code: int) -> None:
    home, whole, stopped = tmp_path / "home", tmp_path / "whole", tmp_path / "stopped"
    first = start(home, whole, -1)
    assert first.communicate(timeout=300)[1] == "" and first.returncode in (0, 3)
    process = start(home, stopped, 2)
    until = time.monotonic() + 300
    while not Path(str(stopped) + ".marker").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == code == 128 + number
    assert "continue with `guide-fast forget --seed 7" in said and "--resume`" in said
    assert (stopped / STATE).is_file()
    again = start(home, stopped, -1, "--resume")
    again.communicate(timeout=300)
    assert again.returncode in (0, 3)
    assert (stopped / "delta.safetensors").read_bytes() == (whole / "delta.safetensors").read_bytes()
    assert not (stopped / STATE).exists()


def test_sigterm_is_a_kind_of_ctrl_c_inside() -> None:
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert issubclass(Terminated, KeyboardInterrupt)


def test_sigterm_waits_for_what_must_happen_as_a_whole() -> None:
    done = []
    with pytest.raises(Terminated), terminable(), uninterrupted():
        signal.raise_signal(signal.SIGTERM)
        done.append("all of it")
    assert done == ["all of it"]


def test_handler_of_somebody_else_stays() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]


def test_other_threads_have_no_handlers() -> None:
    def work() -> None:
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_sigterm_is_found_behind_what_it_became() -> None:
    try:
        try:
            raise Terminated
        except KeyboardInterrupt as error:
            raise ValueError from error
    except ValueError as error:
        assert was_terminated(error)
    assert not was_terminated(KeyboardInterrupt())
    assert not was_terminated(None)
