"""`make gpu` without a GPU: the smoke mode, the order of its parts, what it says of goals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from guide_fast import kernels
from guide_fast.bench import native_libraries, plot, record, run, run_cases, verdict
from guide_fast.bench.case import BOTH, FORWARD
from guide_fast.bench.goals import Goal, average_speedup, memory_ratio, worst_against_best
from guide_fast.bench.kernels import bench_modulated_conv2d
from guide_fast.bench.sources import ROOT

SPEED = re.compile(r"\d (ms|TFLOP/s|GB/s)|\d\.\d+x|\d% of the roofline")


def made_up_row(work: str = FORWARD, *, dense: float = 2.0, grouped: float = 3.0, name: str = "64 px") -> dict:
    """A row as the runner makes it, of numbers that nobody measured."""
    contenders = {"ours": {"device_ms": {"median": 1.0, "p20": 0.9, "p80": 1.1}, "peak_bytes": 10, "roofline": 0.5}}
    contenders["ours"] |= {"tflops": 1.0, "gb_per_s": 1.0, "bound": "flops"}
    contenders["cuDNN + eager"] = {"device_ms": {"median": dense}, "peak_bytes": 200}
    row = {"op": "modulated_conv2d", "case": name, "dtype": "float16", "pass": work, "gate": "passed", "left_out": {}}
    return row | {"contenders": contenders, "speedup": {"cuDNN + eager": dense, "grouped convolution": grouped}}


def result(rows: list[dict], **more: object) -> dict:
    provenance = {"commit": "0", "torch": "0", "processor": "made up"}
    goals = [goal.verdict(rows) for goal in bench_modulated_conv2d.GOALS]
    whole = {"op": "modulated_conv2d", "provenance": provenance, "measured": True, "rows": rows, "left_out": []}
    return whole | {"goals": goals} | more


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    folder = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "guide_fast.bench.run", "--smoke", "--parts", "bench", "generators"]
    command += ["--out", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True), folder


def test_smoke_run_checks_every_operation(smoke: tuple[subprocess.CompletedProcess, Path]) -> None:
    done, folder = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    ops = {name for name in kernels.__all__ if not isinstance(getattr(kernels, name), type)}
    ops |= {"stylegan2_image", "eg3d_image"}
    for op in ops:
        rows = json.loads((folder / f"{op}.json").read_text())["rows"]
        assert rows and all(row["gate"] == "passed" for row in rows), op


def test_smoke_run_prints_and_stores_no_speed(smoke: tuple[subprocess.CompletedProcess, Path]) -> None:
    done, folder = smoke
    assert not SPEED.search(re.sub(r"(?m)^.*goal, not measured.*$", "", done.stdout)), done.stdout
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text())
        if "rows" in content:
            assert content["measured"] is False
            assert all(not row.get("contenders") and "speedup" not in row for row in content["rows"])
            assert all(goal["figure"] is None and goal["reached"] is None for goal in content["goals"])
    assert list(plot.read(folder)) and not [r for r in plot.read(folder) if plot.draw(r, folder)]


def test_without_a_device_nothing_is_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run"])
    assert run.main() == 1
    assert "sees no CUDA device here, so nothing was run or measured" in capsys.readouterr().out


@pytest.mark.parametrize("failing", ["tests", "sanitizer"])
def test_nothing_is_timed_after_a_failure(
    failing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = []
    for part in run.PARTS:
        state = {"state": "failed" if part == failing else "passed", "said": ""}
        monkeypatch.setitem(run.PART, part, lambda *_, p=part, s=state: (p in run.TIMED and timed.append(p)) or s)
    monkeypatch.setattr(sys, "argv", ["run", "--smoke", "--out", str(tmp_path)])
    assert run.main() == 1
    assert not timed
    summary = json.loads((tmp_path / "summary.json").read_text())
    for part in run.TIMED:
        assert summary[part] == {"state": "left out", "said": f"{failing} failed: nothing is timed"}
    assert "nothing is timed" in capsys.readouterr().out


def test_child_that_takes_too_long_is_ended() -> None:
    code, output = run._child([sys.executable, "-c", "print('on', flush=True); import time; time.sleep(60)"], 2.0)
    assert code is None
    assert "on" in output


def test_goals_are_compared_with_what_was_measured() -> None:
    rows = [made_up_row(dense=1.2), made_up_row(dense=2.7, grouped=0.9), made_up_row(BOTH, dense=9.0)]
    average, worst = (goal.verdict(rows) for goal in bench_modulated_conv2d.GOALS)
    assert average["figure"] == pytest.approx(1.8)
    assert average["reached"]
    assert worst["figure"] == 0.9
    assert not worst["reached"]
    memory = Goal("memory", 0.1, memory_ratio(FORWARD, "cuDNN + eager"), at_most=True).verdict(rows)
    assert (memory["figure"], memory["reached"]) == (0.05, True)


@pytest.mark.parametrize("judge", [average_speedup(FORWARD, "x"), worst_against_best(FORWARD), memory_ratio(BOTH, "x")])
def test_goal_without_measurement_is_neither_reached_nor_missed(judge: object) -> None:
    assert Goal("a", 1.0, judge).verdict([])["reached"] is None
    assert Goal("a", 1.0, judge).verdict([{"gate": "failed: x"}])["reached"] is None


def test_goals_are_said_as_reached_or_not() -> None:
    said = list(verdict.goals([result([made_up_row(dense=1.2)])]))
    assert "NOT reached" in said[0] and "1.2" in said[0]
    assert said[1].startswith("goal, reached")
    assert all("not measured" in line for line in verdict.goals([result([])]))


def test_what_was_left_out_is_said() -> None:
    assert "left out for want of time: a; b" in "\n".join(verdict.table(result([], left_out=["a", "b"])))


def test_results_of_an_earlier_run_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, at in (("old", 1000), ("new", 3000)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result([], op=name)))
        os.utime(tmp_path / f"{name}.json", (at, at))
    verdict.print_results(tmp_path, since=2000)
    said = capsys.readouterr().out
    assert "new: 0 rows" in said and "old: 0 rows" not in said


def test_line_carries_median_spread_rates_roofline() -> None:
    said = run_cases.line(made_up_row())
    assert "1.0000 ms [0.9000 to 1.1000]" in said
    assert "50% of the roofline (flops)" in said and "2.00x cuDNN + eager" in said


def test_layers_are_those_of_the_published_networks() -> None:
    def gflop(layers: object) -> float:
        return sum(2 * x.size**2 * x.channels * x.out * x.kernel**2 for x in layers) * 1e-9

    assert gflop(bench_modulated_conv2d.eg3d()) == pytest.approx(93.1 + 196, rel=0.01)
    cases = list(bench_modulated_conv2d.cases())
    assert {case.shape["batch"] for case in cases} == {1, 5, 8}
    assert {model for case in cases for model in case.models} == {"StyleGAN2-256", "StyleGAN2-1024", "EG3D-512"}
    assert {case.unit for case in cases} == {"float16", "tf32"}


def test_chart_is_drawn_of_measured_rows_only(tmp_path: Path) -> None:
    rows = [made_up_row(work, dense=1.0 + i / 4, name=f"{4 << i} px") for i in range(4) for work in (FORWARD, BOTH)]
    path = plot.draw(result(rows), tmp_path)
    assert path is not None and path.stat().st_size > 10_000
    assert plot.draw(result([{"gate": "failed: x", "case": "a"}]), tmp_path) is None


def test_libraries_come_out_of_a_wheel(tmp_path: Path) -> None:
    wheel, package = tmp_path / "guide_fast-1-cp311-abi3-linux.whl", tmp_path / "package"
    package.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("guide_fast/libguide_fast.so", b"core")
        archive.writestr("guide_fast/pipeline.py", b"")
    assert native_libraries.take_from_wheel(wheel, package) == ["libguide_fast.so"]
    assert (package / "libguide_fast.so").read_bytes() == b"core"
    assert [file.name for file in package.iterdir()] == ["libguide_fast.so"]


def test_other_files_are_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_text("no")
    with pytest.raises(ValueError, match=r"a\.whl is no wheel"):
        native_libraries.take_from_wheel(tmp_path / "a.whl", tmp_path)
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("other/x.so", b"")
    with pytest.raises(ValueError, match="holds no compiled libraries"):
        native_libraries.take_from_wheel(tmp_path / "b.whl", tmp_path)


def test_provenance_needs_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert record.provenance()["commit"] == "unknown: no git here"
    assert record.provenance()["uncommitted_changes"] is None
