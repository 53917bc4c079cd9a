"""The program as a whole: help, exit codes, one sentence per error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guide_fast.errors import EvidenceError, GuideFastError, IntegrityError, RefusedError, UsageError

COMMANDS = [
    ("forget",),
    ("invert",),
    ("evaluate",),
    ("render",),
    ("apply",),
    ("rollback",),
    ("settings",),
    ("doctor",),
    ("assets", "list"),
    ("assets", "add"),
    ("assets", "fetch"),
    ("assets", "verify"),
]
READS = [("settings",), ("doctor",), ("assets", "list"), ("assets", "verify")]
WRITES = [command for command in COMMANDS if command not in READS]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(run: Any, command: tuple[str, ...]) -> None:
    outcome = run(*command, "--help")
    assert outcome.code == 0
    _, _, examples = outcome.stdout.partition("Example")
    assert f"guide-fast {' '.join(command)}" in examples
    assert "--json" in outcome.stdout
    assert "--quiet" in outcome.stdout


@pytest.mark.parametrize("command", WRITES, ids=" ".join)
def test_command_that_writes_has_a_dry_run(run: Any, command: tuple[str, ...]) -> None:
    assert "--dry-run" in run(*command, "--help").stdout


def test_no_command_shows_the_help_as_wrong_use(run: Any) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "forget" in outcome.stdout


def test_version_is_one_line(run: Any) -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.stdout.startswith("guide-fast ")
    assert outcome.stdout.count("\n") == 1


def test_help_starts_without_torch() -> None:
    program = (
        "import sys; from guide_fast.cli import main; main(['forget', '--help']); "
        "sys.exit(bool({'torch', 'numpy', 'PIL'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_module_runs_as_the_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "guide_fast.cli", "evaluate", str(tmp_path / "absent"), "--json"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stdout.startswith('{"error": ')
    assert outcome.stderr == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuideFastError("the disk is full"), 1),
        (UsageError("no such file"), 2),
        (EvidenceError("falls short"), 3),
        (RefusedError("two faces"), 4),
        (IntegrityError("tampered"), 5),
    ],
)
def test_error_gives_its_exit_code_with_one_sentence(run: Any, pipeline: Any, error: Exception, code: int) -> None:
    def fail(out: Path) -> None:
        raise error

    pipeline.during = fail
    outcome = run("forget", "--seed", 7)
    assert outcome.code == code
    assert outcome.stderr.splitlines()[-1] == f"guide-fast: {error}"
    outcome = run("forget", "--seed", 7, "--json")
    assert (outcome.code, outcome.json) == (code, {"error": str(error), "exit_code": code})


def test_unexpected_error_is_one_sentence_without_traceback(run: Any, pipeline: Any) -> None:
    pipeline.during = lambda out: {}["no\nkey"]
    outcome = run("forget", "--seed", 7, "--quiet")
    assert outcome.code == 1
    assert outcome.stderr.count("\n") == 1
    assert "unexpected KeyError" in outcome.stderr
    assert "GUIDE_FAST_DEBUG=1" in outcome.stderr


def test_debug_shows_the_traceback(run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_FAST_DEBUG", "1")
    pipeline.during = lambda out: {}["key"]
    outcome = run("forget", "--seed", 7, "--json")
    assert "Traceback" in outcome.stderr
    assert outcome.json["exit_code"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("forgett",), "forget"),
        (("forget", "--sede", "7"), "--seed"),
        (("forget", "--seed", "seven"), "--seed"),
        (("invert",), "--photo"),
        (("render", "--seed", "7", "--truncation", "2"), "--truncation"),
        (("apply", "d.safetensors"), "--out"),
    ],
)
def test_wrong_use_is_one_sentence_that_points_to_the_help(run: Any, arguments: tuple[str, ...], said: str) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert said in outcome.stderr
    assert "--help`" in outcome.stderr
    assert run(*arguments, "--json").json["exit_code"] == 2


def test_unknown_variable_stops_the_run(run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_FAST_LTU_STEP", "3")
    outcome = run("forget", "--seed", 7)
    assert outcome.code == 2
    assert "GUIDE_FAST_LTU_STEPS" in outcome.stderr
    assert not pipeline.calls
