"""The parts of `make gpu` before the benchmarks: what they start, how they read what came of it."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from guide_fast.bench import run

JUNIT = '<testsuites><testsuite errors="{errors}" failures="{failures}" skipped="2" tests="9"/></testsuites>'


class Children:
    """Answers in order to what is started; remembers it."""

    def __init__(self, *answers: tuple[int | None, str]) -> None:
        self.answers, self.commands, self.environments = list(answers), [], []

    def __call__(self, command: list[str], seconds: float, *, environment: dict | None = None, show: bool = False):
        self.commands.append(command)
        self.environments.append(environment)
        for argument in command:
            if argument.startswith("--junitxml=") and self.answers[0][0] is not None:
                failures = int(self.answers[0][0] != 0)
                Path(argument.partition("=")[2]).write_text(JUNIT.format(errors=0, failures=failures))
        return self.answers.pop(0)


@pytest.fixture
def arguments() -> argparse.Namespace:
    return argparse.Namespace(smoke=False, ops=[], impls=[], home="choices")


def children(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int | None, str]) -> Children:
    made = Children(*answers)
    monkeypatch.setattr(run, "_child", made)
    return made


def test_tests_of_the_device_are_counted(
    arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = children(monkeypatch, (0, ""))
    found = run.run_tests(arguments, tmp_path, 10.0)
    assert (found["state"], found["said"]) == ("passed", "7 passed, 2 skipped")
    assert made.commands[0][made.commands[0].index("gpu") - 1 :][:2] == ["-m", "gpu"]
    assert made.environments[0] == {"TRITON_INTERPRET": "0"}


@pytest.mark.parametrize(("answer", "said"), [((1, ""), "6 passed, 1 failures"), ((None, "x"), "not finished")])
def test_tests_that_fail_or_do_not_finish_fail_the_part(
    answer: tuple, said: str, arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children(monkeypatch, answer)
    found = run.run_tests(arguments, tmp_path, 10.0)
    assert found["state"] == "failed" and said in found["said"]


def test_absent_sanitizer_is_said(
    arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = run.run_sanitizer(arguments, tmp_path, 10.0)
    assert found == {"state": "left out", "said": "compute-sanitizer is not on PATH"}


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([(0, ""), (0, "")], "passed"),
        ([(0, ""), (run.SANITIZER_ERROR, "Invalid write")], "failed"),
        ([(1, "wrong")], "failed"),
        ([(0, ""), (None, "")], "left out"),
    ],
)
def test_sanitizer_runs_small_shapes_that_are_compiled_already(
    answers: list, state: str, arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")
    made = children(monkeypatch, *answers)
    assert run.run_sanitizer(arguments, tmp_path, 10.0)["state"] == state
    assert all("--small" in command for command in made.commands)
    if len(made.commands) == 2:
        assert made.commands[1][:3] == ["bin/compute-sanitizer", "--tool", "memcheck"]
        assert made.environments[1] == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@pytest.mark.parametrize(("code", "state"), [(0, "passed"), (1, "failed"), (None, "cut short")])
def test_benchmarks_have_less_time_than_they_are_given(
    code: int | None, state: str, arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = children(monkeypatch, (code, "x\n3 rows, 0 wrong, 0 cases left out for want of time\n"))
    found = run.run_bench(arguments, tmp_path, 100.0)
    assert found["state"] == state
    assert made.commands[0][made.commands[0].index("--seconds") + 1] == "90.0"
    assert made.commands[0][made.commands[0].index("--home") + 1] == "choices"
    if code is not None:
        assert found["said"].startswith("3 rows")


def test_parts_leave_time_for_those_behind_them() -> None:
    left = 60 * run.MINUTES
    for part in run.PARTS:
        taken = run.SHARES[part] * left
        assert taken >= 25, part  # seconds, though every part before took all it may
        left -= taken
    assert left == pytest.approx(0)


@pytest.mark.parametrize(("part", "group"), [("bench", "kernels"), ("generators", "generators")])
def test_each_timed_part_runs_its_own_benchmarks(
    part: str, group: str, arguments: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = children(monkeypatch, (0, "x"))
    run.PART[part](arguments, tmp_path, 100.0)
    assert made.commands[0][made.commands[0].index("--group") + 1] == group
