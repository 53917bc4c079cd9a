"""The fuzzer finds a door that lacks a check, soon; of the door as it is it finds nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from checkpoint_answers import answer
from mutate_checkpoint import mutated

from guide_fast.models.published import _eg3d, _records, _settings, _stylegan2

INPUTS = 250  # a few seconds
CHECKS: dict[str, tuple[Any, str]] = {
    "a tensor inside its storage": (_records.TensorRecord, "__post_init__"),
    "shapes that the settings ask for": (_stylegan2, "check_shapes"),
    "numbers that are finite": (_settings, "check_numbers"),
    "settings of StyleGAN2": (_stylegan2, "check_stylegan2"),
    "settings of EG3D": (_eg3d, "check_eg3d"),
    "rendering options": (_settings, "_check_rendering"),
}


def first_finding(path: Path) -> tuple[int, Exception] | None:
    """Index of the first input, of a fixed sequence, that is not answered cleanly; what came instead."""
    for i in range(INPUTS):
        path.write_bytes(mutated(random.Random(i), path.with_suffix(".made")))
        try:
            answer(path)
        except Exception as error:  # whatever it is, it is what is looked for
            return i, error
    return None


def test_door_as_it_is_gives_every_clean_answer(tmp_path: Path) -> None:
    answers = set()
    for i in range(INPUTS):
        (tmp_path / "input").write_bytes(mutated(random.Random(i), tmp_path / "made"))
        answers.add(answer(tmp_path / "input"))
    assert answers == {"Published", "Published, not built", "UsageError", "RefusedError", "IntegrityError"}


@pytest.mark.parametrize("check", CHECKS)
def test_missing_check_is_found(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*CHECKS[check], lambda *_, **__: None)
    assert first_finding(tmp_path / "input") is not None
