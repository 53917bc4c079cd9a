"""`guide-fast forget`: what reaches the pipeline, what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from guide_fast.artifacts import Latent


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_seed_names_the_person_not_the_randomness(run: Any, pipeline: Any) -> None:
    assert run("forget", "--seed", 7).code == 0
    asked = pipeline.asked("forget")
    assert (asked["seed"], asked["config"].ltu.seed, asked["out"]) == (7, 0, Path("out/seed-7"))
    assert "photo" not in asked
    assert "latent" not in asked


def test_run_seed_is_the_randomness(run: Any, pipeline: Any) -> None:
    run("forget", "--seed", 7, "--run-seed", 3)
    asked = pipeline.asked("forget")
    assert (asked["seed"], asked["config"].ltu.seed) == (7, 3)


def test_photo_options_reach_the_pipeline(run: Any, pipeline: Any) -> None:
    run("forget", "--photo", "some/me.jpg", "--face", 1, "--aligned", "--force")
    asked = pipeline.asked("forget")
    assert (asked["photo"], asked["face"], asked["aligned"], asked["force"]) == (Path("some/me.jpg"), 1, True, True)
    assert asked["out"] == Path("out/me")


def test_latent_is_loaded(run: Any, pipeline: Any) -> None:
    Latent(torch.ones(2, 3), "tiny", "seed:1").save(Path("w.safetensors"))
    run("forget", "--latent", "w.safetensors", "--out", "here")
    asked = pipeline.asked("forget")
    assert asked["latent"].origin == "seed:1"
    assert asked["out"] == Path("here")


def test_demo_is_the_demonstration_photo(run: Any, pipeline: Any, demo_photo: Path) -> None:
    run("forget", "--demo")
    asked = pipeline.asked("forget")
    assert (asked["photo"], asked["out"]) == (demo_photo, Path("out/demo"))


def test_earlier_deltas_are_applied_in_order(run: Any, pipeline: Any, delta: Path) -> None:
    run("forget", "--seed", 7, "--delta", "first.safetensors", "--delta", delta, "--generator", "mine.safetensors")
    asked = pipeline.asked("load_generator")
    assert asked["name"] == "mine.safetensors"
    assert asked["deltas"] == [Path("first.safetensors"), delta / "delta.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nobody"),
        (("--seed", 7, "--photo", "me.jpg"), "--photo with --seed"),
        (("--seed", 7, "--demo"), "--seed with --demo"),
        (("--seed", -1), "--seed -1"),
        (("--seed", 2**63), f"--seed {2**63}"),
        (("--seed", 7, "--face", 1), "--face"),
        (("--latent", "w.safetensors", "--aligned"), "--aligned"),
        (("--seed", 7, "--resume"), "out/seed-7"),
        (("--seed", 7, "--steps", -5), "ltu.steps = -5"),
        (("--seed", 7, "--radius", "nan"), "ltu.radius = nan"),
        (("--seed", 7, "--target", "nobody"), "'nobody'"),
        (("--seed", 7, "--set", "ltu.lr"), "--set ltu.lr"),
        (("--seed", 7, "--set", "ltu.lrr=1"), "ltu.lr"),
        (("--seed", 7, "--config", "absent.toml"), "absent.toml"),
        (("--latent", "absent.safetensors"), "absent.safetensors"),
    ],
)
def test_impossible_request_is_refused_before_anything_is_loaded(
    run: Any, pipeline: Any, arguments: tuple[object, ...], said: str
) -> None:
    outcome = run("forget", *arguments)
    assert outcome.code == 2
    assert outcome.stderr.count("\n") == 1
    assert said in outcome.stderr
    assert not pipeline.calls
    assert not list(Path().iterdir())


def test_file_as_output_is_refused_before_anything_is_loaded(run: Any, pipeline: Any) -> None:
    Path("out").touch()
    outcome = run("forget", "--seed", 7, "--out", "out")
    assert outcome.code == 2
    assert "out is a file" in outcome.stderr
    assert not pipeline.calls


def test_flags_win_over_environment_over_file(run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("s.toml").write_text('[ltu]\nsteps = 10\nlr = 0.1\nlayers = "fine"\n[target]\nd = 4\n', encoding="utf-8")
    monkeypatch.setenv("GUIDE_FAST_LTU_STEPS", "20")
    monkeypatch.setenv("GUIDE_FAST_LTU_LR", "0.2")
    monkeypatch.setenv("GUIDE_FAST_LTU_LAYERS", "coarse")
    run("forget", "--seed", 7, "--config", "s.toml", "--steps", 30, "--set", "ltu.lr=0.3", "--set", "ltu.steps=1")
    config = pipeline.asked("forget")["config"]
    assert (config.ltu.steps, config.ltu.lr, config.ltu.layers, config.target.d) == (30, 0.3, "coarse", 4.0)


def test_result_says_in_words_what_was_measured(run: Any, pipeline: Any) -> None:
    pipeline.metrics = {
        "forgotten": 0.41,
        "stranger_mean": 0.39,
        "stranger_std": 0.06,
        "retained": 0.972,
        "retained_p05": 0.951,
        "fd_pre": 1.5,
        "steps": 60,
        "seconds": 71.2,
        "shortfalls": [],
    }
    text = run("forget", "--seed", 7).stdout
    for number in ("0.41", "0.39 +- 0.06", "0.972", "0.951", "1.5", "60 steps in 71 s"):
        assert number in text


def test_what_was_not_measured_is_not_said(run: Any, pipeline: Any) -> None:
    pipeline.metrics = {"forgotten": None, "retained": None, "shortfalls": ["the judge is missing"]}
    outcome = run("forget", "--seed", 7)
    assert outcome.code == 3
    assert "resembles" not in outcome.stdout
    assert "Falls short: the judge is missing" in outcome.stdout


def test_json_is_one_object_whatever_libraries_print(run: Any, pipeline: Any) -> None:
    pipeline.metrics |= {"fd_pre": float("nan")}
    pipeline.during = lambda out: (out.mkdir(parents=True), (out / "delta.safetensors").touch())
    outcome = run("forget", "--seed", 7, "--json")
    assert outcome.code == 0
    assert outcome.json["metrics"]["fd_pre"] is None
    assert outcome.json["files"] == {"delta": "out/seed-7/delta.safetensors"}
    assert "a library prints" in outcome.stderr


def test_shortfalls_exit_three_with_the_result(run: Any, pipeline: Any) -> None:
    pipeline.metrics |= {"shortfalls": ["retained is 0.91, 0.95 was asked for"]}
    outcome = run("forget", "--seed", 7, "--json")
    assert outcome.code == 3
    assert outcome.json["shortfalls"] == ["retained is 0.91, 0.95 was asked for"]


def test_dry_run_plans_without_touching_anything(run: Any, pipeline: Any) -> None:
    outcome = run("forget", "--seed", 7, "--dry-run")
    assert outcome.code == 0
    assert "Nothing was changed." in outcome.stdout
    assert [name for name, _ in pipeline.calls] == ["plan_forget"]
    assert pipeline.asked("plan_forget")["seed"] == 7
    assert run("forget", "--seed", 7, "--dry-run", "--json").json["dry_run"] is True
    assert not list(Path().iterdir())


def interrupted(out: Path | None) -> None:
    raise KeyboardInterrupt


def leave_state(out: Path | None) -> None:
    assert out is not None
    out.mkdir(parents=True, exist_ok=True)
    for name in ("latent.safetensors", "config.json", "state.safetensors"):
        (out / name).touch()
    raise KeyboardInterrupt


def test_interrupt_says_how_to_go_on(run: Any, pipeline: Any) -> None:
    pipeline.during = leave_state
    outcome = run("forget", "--seed", 7, "--out", "my run", "--quiet")
    assert outcome.code == 130
    assert outcome.stderr == (
        "guide-fast: stopped; continue with `guide-fast forget --seed 7 --out 'my run' --quiet --resume`\n"
    )
    assert run("forget", "--seed", 7, "--out", "my run", "--json").json["exit_code"] == 130


@pytest.mark.parametrize("names", [("inversion.safetensors",), ("latent.safetensors", "config.json")])
def test_run_stopped_before_the_loop_can_be_continued(run: Any, pipeline: Any, names: tuple[str, ...]) -> None:
    def leave(out: Path | None) -> None:
        assert out is not None
        out.mkdir(parents=True)
        for name in names:
            (out / name).touch()
        raise KeyboardInterrupt

    pipeline.during = leave
    outcome = run("forget", "--photo", "me.jpg", "--quiet")
    assert outcome.stderr == "guide-fast: stopped; continue with `guide-fast forget --photo me.jpg --quiet --resume`\n"
    pipeline.during, pipeline.calls = lambda out: None, []
    assert run("forget", "--photo", "me.jpg", "--resume").code == 0
    assert pipeline.asked("forget")["resume"] is True


@pytest.mark.parametrize("names", [("latent.safetensors",), ("latent.safetensors", "config.json", "delta.safetensors")])
def test_folder_of_a_finished_run_is_not_resumed(run: Any, pipeline: Any, names: tuple[str, ...]) -> None:
    Path("out/me").mkdir(parents=True)
    for name in names:
        (Path("out/me") / name).touch()
    outcome = run("forget", "--photo", "me.jpg", "--resume")
    assert outcome.code == 2
    assert "no stopped run" in outcome.stderr


def test_interrupt_without_state_says_so(run: Any, pipeline: Any) -> None:
    pipeline.during = interrupted
    outcome = run("forget", "--seed", 7, "--quiet")
    assert outcome.code == 130
    assert outcome.stderr.count("\n") == 1
    assert "start again" in outcome.stderr


def test_interrupt_before_the_first_state_does_not_advise_to_resume_an_older_run(run: Any, pipeline: Any) -> None:
    pipeline.during = leave_state
    run("forget", "--seed", 7)
    pipeline.during = interrupted
    outcome = run("forget", "--seed", 7, "--steps", 5)
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1].endswith(
        "stopped with nothing to resume; run the same command to start again"
    )


@pytest.mark.parametrize("resume", [True, False])
def test_interrupt_while_the_generator_is_loaded_says_how_to_go_on(
    run: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    pipeline.during = leave_state
    run("forget", "--seed", 7)

    def stop(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("guide_fast.pipeline.load_generator", stop)
    outcome = run("forget", "--seed", 7, "--quiet", *(["--resume"] if resume else []))
    assert outcome.code == 130
    way = (
        "continue with `guide-fast forget --seed 7 --quiet --resume`"
        if resume
        else "run the same command to start again"
    )
    assert way in outcome.stderr


def test_dry_run_mentions_the_stopped_run_that_would_go(run: Any, pipeline: Any) -> None:
    pipeline.during = leave_state
    run("forget", "--seed", 7)
    outcome = run("forget", "--seed", 7, "--dry-run")
    assert outcome.code == 0
    assert "out/seed-7 holds a stopped run" in outcome.stderr
    assert "stopped run" not in run("forget", "--seed", 7, "--dry-run", "--resume").stderr


def test_resume_continues_a_stopped_run(run: Any, pipeline: Any) -> None:
    pipeline.during = leave_state
    run("forget", "--seed", 7)
    pipeline.during, pipeline.calls = lambda out: None, []
    assert run("forget", "--seed", 7, "--resume").code == 0
    assert pipeline.asked("forget")["resume"] is True


def test_starting_anew_over_a_stopped_run_is_mentioned(run: Any, pipeline: Any) -> None:
    pipeline.during = leave_state
    run("forget", "--seed", 7)
    pipeline.during, pipeline.calls = lambda out: None, []
    assert "--resume" in run("forget", "--seed", 7).stderr
    assert pipeline.asked("forget")["resume"] is False


def test_quiet_says_only_the_result(run: Any, pipeline: Any) -> None:
    outcome = run("forget", "--seed", 7, "--quiet")
    assert outcome.stderr == ""
    assert outcome.stdout
