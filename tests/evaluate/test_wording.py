"""The sentences of the report say what the numbers say."""

from __future__ import annotations

from typing import Any

import pytest

from guide_fast.evaluate.wording import limitations, shown, verdict


def test_verdict_of_a_forgotten_person(metrics: dict[str, Any]) -> None:
    text = " ".join(verdict(metrics, people=64, held=True))
    assert "no longer produces this person" in text
    assert "0.28, two strangers score 0.39 ± 0.06" in text
    assert "64 bystanders" in text and "0.97" in text
    assert "does not recognise" in text
    assert "tiny-third, agrees" in text


def test_verdict_of_a_person_still_there(metrics: dict[str, Any]) -> None:
    metrics |= {"forgotten": 0.8, "forgotten_person_match": True}
    metrics["third_opinion"]["forgotten"] = 0.9
    text = " ".join(verdict(metrics, people=64, held=False))
    assert "still produces this person" in text and "no longer" not in text
    assert "still recognises" in text
    assert "tiny-third, does not agree" in text


def test_verdict_without_a_third_opinion(metrics: dict[str, Any]) -> None:
    del metrics["third_opinion"]
    assert "third opinion" not in " ".join(verdict(metrics, people=64, held=True))


def test_limitations_claim_nothing_unprovable(metrics: dict[str, Any]) -> None:
    text = " ".join(limitations(metrics))
    assert "relative" in text and "fitted to almost any face" in text and "tiny-judge" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "yes"),
        (0.28149, "0.281"),
        (256, "256"),
        ([0.3, 0.25, 0.5], "0.250 to 0.500"),
        ([], "none"),
        ("name", "name"),
    ],
)
def test_values_are_shown_plainly(value: object, expected: str) -> None:
    assert shown(value) == expected
