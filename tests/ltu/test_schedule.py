"""Policies and patterns name layers; saliency takes the most forgetting for the least harm."""

from __future__ import annotations

import pytest

from guide_fast.errors import UsageError
from guide_fast.ltu.schedule import budget_of, candidate_layers, choose_by_budget, choose_by_saliency, layer_size
from guide_fast.models.mobile_stylegan import MobileStyleGAN


@pytest.mark.parametrize("policy", ["all", "auto"])
def test_all_and_auto_admit_every_layer(teacher: MobileStyleGAN, policy: str) -> None:
    assert candidate_layers(teacher, policy) == teacher.layers


def test_coarse_and_fine_share_the_slots_in_halves(teacher: MobileStyleGAN) -> None:
    coarse, fine = candidate_layers(teacher, "coarse"), candidate_layers(teacher, "fine")
    assert coarse + fine == teacher.layers
    slots = [{layer.rsplit(".", 1)[0] for layer in half} for half in (coarse, fine)]
    assert [len(half) for half in slots] == [4, 4]
    assert not slots[0] & slots[1]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("to_img.modulation", ("to_img.modulation",)),
        ("to_img.*, conv1.*", ("conv1.modulation", "conv1.convolution", "to_img.modulation", "to_img.convolution")),
        ("blocks.[1-9].up.*", ("blocks.1.up.modulation",)),
        ("conv1.*,conv1.modulation", ("conv1.modulation", "conv1.convolution")),
    ],
)
def test_patterns_choose_layers_in_the_generators_order(
    teacher: MobileStyleGAN, policy: str, wanted: tuple[str, ...]
) -> None:
    assert candidate_layers(teacher, policy) == wanted


@pytest.mark.parametrize(
    ("policy", "bad"), [("conv9", "conv9"), ("conv1.*,x*", "x[*]"), ("Coarse", "Coarse"), ("", "")]
)
def test_pattern_without_a_layer_is_refused_with_the_policies(teacher: MobileStyleGAN, policy: str, bad: str) -> None:
    with pytest.raises(UsageError, match=f"no layer of tiny matches '{bad}'.*all, coarse, fine, auto"):
        candidate_layers(teacher, policy)


@pytest.mark.parametrize("policy", ["coarse,fine", "conv1.*, auto"])
def test_policies_stand_alone(teacher: MobileStyleGAN, policy: str) -> None:
    with pytest.raises(UsageError, match="is a policy and stands alone"):
        candidate_layers(teacher, policy)


GAIN = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0, "past": 0.0}
COST = {"a": 8.0, "b": 0.3, "c": 1.0, "d": 9.0, "past": 0.0}  # harm per gain: b, c, a, d


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [(0.0, ()), (0.25, ("b",)), (0.3, ("b",)), (0.31, ("b", "c")), (0.9, ("a", "b", "c")), (1.0, ("a", "b", "c", "d"))],
)
def test_layers_with_least_harm_per_gain_go_first(keep: float, wanted: tuple[str, ...]) -> None:
    assert choose_by_saliency(GAIN, COST, keep=keep) == wanted


def test_layers_without_gain_never_move() -> None:
    assert choose_by_saliency(dict.fromkeys("ab", 0.0), dict.fromkeys("ab", 0.0), keep=1.0) == ()


@pytest.mark.parametrize("policy", ["to_img.*", "blocks.1.conv*"])
def test_layers_that_the_small_image_does_not_show_are_refused(teacher: MobileStyleGAN, policy: str) -> None:
    assert candidate_layers(teacher, policy, resolution=32) == candidate_layers(teacher, policy)
    with pytest.raises(UsageError, match=r"names only layers past the 16 px output.*raise ltu\.resolution"):
        candidate_layers(teacher, policy, resolution=16)


def test_layers_of_which_the_small_image_shows_some_are_admitted(teacher: MobileStyleGAN) -> None:
    assert candidate_layers(teacher, "fine", resolution=16) == candidate_layers(teacher, "fine")


SIZES = {"a": 50, "b": 40, "c": 30, "d": 5, "past": 1}


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [(4, ()), (5, ("d",)), (39, ("c", "d")), (40, ("b",)), (45, ("b", "d")), (70, ("b", "c")), (125, tuple("abcd"))],
)
def test_budget_takes_the_most_useful_layers_that_still_fit(budget: int, wanted: tuple[str, ...]) -> None:
    assert choose_by_budget(GAIN, COST, SIZES, budget=budget) == wanted


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [("budget=7", 7), ("budget=500k", 500_000), ("budget=2M", 2_000_000), ("budget= 1_000", 1000), ("auto", None)],
)
def test_budget_is_a_number_of_parameters(policy: str, wanted: int | None) -> None:
    assert budget_of(policy) == wanted


@pytest.mark.parametrize("said", ["", "0", "-5", "2.5M", "many", "2G", "k"])
def test_budget_that_is_no_number_is_refused(teacher: MobileStyleGAN, said: str) -> None:
    with pytest.raises(UsageError, match=r"a budget is a number of parameters, as in budget=500k"):
        candidate_layers(teacher, f"budget={said}")


def test_budget_admits_layers_of_at_most_its_size_that_the_image_shows(teacher: MobileStyleGAN) -> None:
    found = candidate_layers(teacher, "budget=300", resolution=16)
    assert found == tuple(layer for layer in teacher.seen_layers(16) if layer_size(teacher, layer) <= 300)
    assert 0 < len(found) < len(teacher.seen_layers(16))


def test_budget_that_no_layer_fits_names_the_smallest(teacher: MobileStyleGAN) -> None:
    sizes = {layer: layer_size(teacher, layer) for layer in teacher.layers}
    smallest = min(sizes.values())
    with pytest.raises(UsageError, match=rf"the smallest is \S+ with {smallest}$"):
        candidate_layers(teacher, f"budget={smallest - 1}")
