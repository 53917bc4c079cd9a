"""guide-fast bench: commands, refusals, one JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from guide_fast.bench import figures, forget, generator, ops, serve, step
from guide_fast.bench.figures import spread
from guide_fast.bench.specification import Specification, load


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Specification]:
    """What the benchmarks were asked for; they answer with one figure, and print as libraries do."""
    seen: list[Specification] = []

    def run(specification: Specification, *rest: Any, **more: Any) -> dict[str, Any]:
        seen.append(specification)
        sys.stdout.write("a library prints\n")
        return figures.envelope(specification, {"x: ours": spread([1.0], unit="s")}, [], left_out_for_want_of_time=[])

    for module in (generator, ops):
        monkeypatch.setattr(module, "run", run)
    return seen


def test_group_without_command_shows_help(run: Any) -> None:
    outcome = run("bench")
    assert outcome.code == 2
    for command in ("forget", "generator", "ops", "serve", "step", "--compare"):
        assert command in outcome.stdout


@pytest.mark.parametrize("command", [("ops",), ("generator", "stylegan2")])
def test_json_is_one_object_and_the_files_are_there(
    command: tuple[str, ...], run: Any, asked: list[Specification], tmp_path: Path
) -> None:
    outcome = run("bench", *command, "--json", "--out", tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["figures"]["x: ours"]["median"] == 1.0
    assert all(Path(file).is_file() for file in outcome.json["files"])
    assert json.loads(Path(outcome.json["files"][0]).read_text())["benchmark"] == asked[0].name
    assert "a library prints" in outcome.stderr


def test_flags_replace_the_files_values(run: Any, asked: list[Specification], tmp_path: Path) -> None:
    run("bench", "ops", "haar", "face_crop", "--threads", 3, "--seconds", 9, "--out", tmp_path)
    run("bench", "generator", "eg3d_renderer", "--quick", "--rounds", 4, "--out", tmp_path)
    assert asked[0].values["ops"] == ["haar", "face_crop"] and asked[0].values["threads"] == 3
    assert asked[0].values["seconds"] == 9
    assert asked[1].values["rounds"] == 4 and asked[1].values["options"] == {"rays": 32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generator", "stylegan3"), "stylegan3 is no benchmark of a generator; choose one of eg3d_renderer"),
        (("generator", "forget"), "forget is no benchmark of a generator"),
        (("ops", "har"), "there is no benchmark of har"),
        (("forget", "--seeds", "0,x"), "--seeds 0,x is no list of whole numbers"),
        (("forget", "--seeds", "0,-1"), "--seed -1 is out of range"),
        (("forget", "--seeds", "3,3"), "--seeds 3,3 names a person twice"),
        (("forget", "--against", "best"), "there is no baseline best; choose of published, compiled"),
        (("serve", "--against", "best"), "there is no server best; choose of eager, ours"),
        (("train",), "train"),
    ],
)
def test_wrong_use_is_refused(arguments: tuple[str, ...], message: str, run: Any, tmp_path: Path) -> None:
    out = ("--out", tmp_path) if arguments[0] != "train" else ()
    outcome = run("bench", *arguments, *out)
    assert outcome.code == 2 and message in outcome.stderr.replace("\n", " ")


def test_servers_beside_ours_can_be_chosen(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Specification] = []

    def measured(specification: Specification, **_: Any) -> dict[str, Any]:
        seen.append(specification)
        return figures.envelope(specification, {}, [], left_out={}, too_much={})

    monkeypatch.setattr(serve, "run", measured)
    assert run("bench", "serve", "--against", "openvino", "--rounds", 1, "--out", tmp_path).code == 0
    assert list(seen[0].values["contenders"]) == ["ours", "openvino"] and seen[0].values["rounds"] == 1


def test_file_as_folder_is_refused_before_anything_runs(run: Any, asked: list[Specification], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = run("bench", "ops", "--out", tmp_path / "file")
    assert (outcome.code, asked) == (2, []) and "is a file; name a folder with --out" in outcome.stderr
    outcome = run("bench", "ops", "--out", tmp_path / "file" / "below")
    assert (outcome.code, asked) == (1, []) and "cannot write" in outcome.stderr


@pytest.mark.parametrize("command", ["forget", "step"])
def test_absent_weights_are_one_sentence(
    command: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    outcome = run("bench", command, "--out", tmp_path / "out", "--json")
    assert outcome.code not in (0, 3) and "forbids to fetch it; unset that" in outcome.json["error"]


def test_failed_gate_is_exit_code_3(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a", "gate": "its loss is off", "contender": "ours"}]
    made = figures.envelope(load("step"), {}, rows, absent_switches=[])
    monkeypatch.setattr(step, "run", lambda *a, **k: made)
    outcome = run("bench", "step", "--out", tmp_path)
    assert outcome.code == 3 and "1 of 1 rows have no speed: its loss is off" in outcome.stderr


def test_interrupt_says_how_to_go_on(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(forget, "run", stopped)
    outcome = run("bench", "forget", "--out", tmp_path)
    assert outcome.code == 130 and "run the same command to go on" in outcome.stderr


def test_contenders_that_disagree_are_exit_code_3(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guide_fast.bench import stylegan2_cpu

    monkeypatch.setattr(stylegan2_cpu, "measure", lambda **k: sys.exit("image of ours differ: nothing is timed"))
    outcome = run("bench", "generator", "stylegan2", "--out", tmp_path)
    assert outcome.code == 3 and "nothing is timed" in outcome.stderr


def test_two_results_are_compared(run: Any, asked: list[Specification], tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("bench", "ops", "--out", tmp_path / name)
    outcome = run("bench", "--compare", tmp_path / "a" / "ops.json", tmp_path / "b" / "ops.json", "--json")
    assert outcome.code == 0 and outcome.json["figures"]["x: ours"]["ratio"] == 1.0
    outcome = run("bench", "--compare", tmp_path / "a" / "ops.json", tmp_path / "b" / "ops.json", "ops")
    assert outcome.code == 2 and "leave ops out" in outcome.stderr
