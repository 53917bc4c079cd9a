"""The loop halves its passes when memory runs out, asks the judge before it ends early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.errors import GuideFastError
from guide_fast.ltu import Bank, Networks, Unlearned, unlearn
from guide_fast.ltu.loop import held_steps
from guide_fast.ltu.step import Step
from guide_fast.models.mobile_stylegan import MobileStyleGAN

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes."),
    MemoryError(),
]
Run = Callable[..., Unlearned]


@pytest.fixture
def run(teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, config: LtuConfig) -> Run:
    def call(*, settings: dict[str, Any] | None = None, **arguments: Any) -> Unlearned:
        changed = replace(config, **{"warm_start": False, "layers": "all"} | (settings or {}))
        return unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=changed, **arguments)

    return call


def memory_for(monkeypatch: pytest.MonkeyPatch, images: int, error: BaseException, *, from_call: int = 0) -> list[int]:
    """Passes of more than `images` images fail; returns the sizes of those that did not."""
    losses, sizes, calls = Step.losses, [], []

    def limited(step: Step, student: Any, draws: Any, start: int, stop: int) -> Any:
        calls.append(stop)
        if stop - start > images and len(calls) > from_call:
            raise error
        sizes.append(stop - start)
        return losses(step, student, draws, start, stop)

    monkeypatch.setattr(Step, "losses", limited)
    return sizes


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_step_without_memory_takes_half_of_its_images_at_once(
    run: Run, teacher: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Any
) -> None:
    whole = run()
    seen: list[float] = []

    def progress(stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if stage == "unlearning" and done:
            seen.append(values["images_at_once"])

    sizes = memory_for(monkeypatch, 2, error)
    result = run(progress=progress)
    assert sizes == [2, 2, 1] * 4
    assert seen == [2, 2, 2, 2]
    assert [note.split(";")[0] for note in result.notes] == [
        f"memory ran out at step 0: from there {n} of a step's 5 images go through the networks at once, which changes "
        "the result by rounding alone"
        for n in (3, 2)
    ]
    assert "memory ran out at step 0" in caplog.text
    before, a, b = (
        torch.nn.utils.parameters_to_vector(g.parameters()) for g in (teacher, whole.generator, result.generator)
    )
    assert (a - b).norm() < 0.01 * (a - before).norm()


def test_memory_that_runs_out_later_changes_the_steps_from_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = memory_for(monkeypatch, 4, ERRORS[0], from_call=2)
    assert len(run().notes) == 1
    assert sizes == [5, 5, 3, 2, 3, 2]


def test_one_image_that_does_not_fit_says_the_way_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(monkeypatch, 0, ERRORS[0])
    with pytest.raises(GuideFastError, match=r"not even one image.*2 GiB.*lower ltu\.resolution"):
        run()


def test_other_errors_pass(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(monkeypatch, 0, RuntimeError("a mistake"))
    with pytest.raises(RuntimeError, match="a mistake"):
        run()


def test_resumed_run_goes_on_in_passes_of_the_same_size(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = {"state_path": tmp_path / "state.safetensors"}

    def stop(stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if stage == "unlearning" and done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        memory_for(patched, 3, ERRORS[0])
        whole = run()
        with pytest.raises(KeyboardInterrupt):
            run(**state, progress=stop)
    result = run(**state, resume=True)  # there is memory again, but the bytes are to be the same
    assert weights_sha256(result.generator) == weights_sha256(whole.generator)
    assert result.notes == whole.notes


EARLY = {"reached": 2.0, "hold": 2, "steps": 9}  # the proxy calls anybody forgotten


def test_judge_that_agrees_ends_the_steps(run: Run) -> None:
    asked: list[Any] = []

    def confirm(student: Any) -> tuple[float, float]:
        asked.append(student)
        return 0.3, 0.4

    result = run(settings=EARLY | {"confirm": True}, confirm=confirm)
    assert (result.steps, result.stopped, len(asked)) == (2, "confirmed", 1)
    assert result.curve[-1]["judged"] == 0.3


def test_judge_that_refuses_is_asked_again_after_as_many_steps(run: Run) -> None:
    answers = iter([0.9, 0.5, 0.4])
    result = run(settings=EARLY | {"confirm": True}, confirm=lambda student: (next(answers), 0.4))
    assert (result.steps, result.stopped) == (6, "confirmed")
    assert {point["step"]: point["judged"] for point in result.curve if "judged" in point} == {1: 0.9, 3: 0.5, 5: 0.4}


def test_judge_that_never_agrees_lets_all_steps_pass(run: Run) -> None:
    result = run(settings=EARLY | {"confirm": True}, confirm=lambda student: (0.9, 0.4))
    assert (result.steps, result.stopped) == (9, "steps")


def test_judge_is_not_asked_unless_the_settings_say_so(run: Run) -> None:
    def refuse(student: Any) -> tuple[float, float]:
        raise AssertionError("asked")

    assert run(settings=EARLY, confirm=refuse).stopped == "reached"


def test_held_steps_are_the_last_ones_without_a_gap(config: LtuConfig) -> None:
    curve = [{"forgotten": value} for value in (0.0, 0.9, 0.1, 0.2)]
    assert held_steps(curve, replace(config, reached=0.2)) == 2
    assert held_steps([], config) == 0
