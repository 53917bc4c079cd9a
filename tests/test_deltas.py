"""Applying, rolling back deltas: exact, in order, or not at all."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_generator

from guide_fast.artifacts import Delta, weights_sha256
from guide_fast.deltas import apply_delta, make_delta, rollback
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def changed(base: MobileStyleGAN, *names: str, by: float = 1.01) -> MobileStyleGAN:
    generator = copy.deepcopy(base)
    with torch.no_grad():
        for name in names:
            generator.get_parameter(name).mul_(by)
    return generator


def delta_between(base: MobileStyleGAN, after: MobileStyleGAN) -> Delta:
    return make_delta(base, after, config={"ltu": {"steps": 1}}, seeds={"ltu": 0}, metrics={"retained": 1.0})


@pytest.fixture
def base() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture
def delta(base: MobileStyleGAN) -> Delta:
    return delta_between(base, changed(base, "conv1.weight", "to_img.bias"))


def test_delta_holds_only_what_changed(base: MobileStyleGAN, delta: Delta) -> None:
    assert set(delta.tensors) == {"conv1.weight", "to_img.bias"}
    assert delta.generator == "tiny"
    assert delta.parent_sha256 is None
    assert delta.base_sha256 == weights_sha256(base)


def test_rollback_restores_every_byte_after_apply(base: MobileStyleGAN, delta: Delta) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    wanted = changed(base, "conv1.weight", "to_img.bias").state_dict()
    assert apply_delta(base, delta) is base
    assert all(torch.equal(value, wanted[name]) for name, value in base.state_dict().items())
    assert base.lineage == (delta.sha256,)
    assert rollback(base, delta) is base
    restored = base.state_dict()
    assert all(torch.equal(value.view(torch.int32), restored[name].view(torch.int32)) for name, value in before.items())
    assert base.lineage == ()


@pytest.mark.parametrize("special", [-0.0, float("nan"), float("inf"), 1e-45], ids=["-0", "nan", "inf", "denormal"])
def test_special_values_come_and_go_to_the_bit(base: MobileStyleGAN, special: float) -> None:
    after = copy.deepcopy(base)
    after.to_img.bias.data[0] = special
    delta = delta_between(base, after)
    before = base.to_img.bias.detach().clone()
    apply_delta(base, delta)
    assert torch.equal(base.to_img.bias.view(torch.int32), after.to_img.bias.view(torch.int32))
    rollback(base, delta)
    assert torch.equal(base.to_img.bias, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_through_16_bits(base: MobileStyleGAN, dtype: torch.dtype) -> None:
    base = base.to(dtype)
    delta = delta_between(base, changed(base, "conv1.weight", by=2.0))
    assert delta.tensors["conv1.weight"].dtype == torch.int16
    before = weights_sha256(base)
    rollback(apply_delta(base, delta), delta)
    assert weights_sha256(base) == before


def test_deltas_stack_in_order_only(base: MobileStyleGAN, delta: Delta) -> None:
    once = apply_delta(copy.deepcopy(base), delta)
    second = delta_between(once, changed(once, "conv1.weight", by=0.9))
    assert second.parent_sha256 == delta.sha256
    with pytest.raises(UsageError, match="in order"):
        apply_delta(base, second)
    apply_delta(apply_delta(base, delta), second)
    assert base.lineage == (delta.sha256, second.sha256)
    with pytest.raises(UsageError, match="rolled back from"):
        rollback(base, delta)
    assert base.lineage == (delta.sha256, second.sha256)
    rollback(rollback(base, second), delta)
    assert base.lineage == ()
    assert weights_sha256(base) == delta.base_sha256


def test_delta_may_be_given_as_its_file(base: MobileStyleGAN, delta: Delta, tmp_path: Path) -> None:
    before = weights_sha256(base)
    delta.save(tmp_path / "delta.safetensors")
    assert weights_sha256(apply_delta(base, tmp_path / "delta.safetensors")) == delta.result_sha256
    assert weights_sha256(rollback(base, str(tmp_path / "delta.safetensors"))) == before


def test_same_delta_twice_is_refused(base: MobileStyleGAN, delta: Delta) -> None:
    apply_delta(base, delta)
    with pytest.raises(UsageError):
        apply_delta(base, delta)


def test_other_weights_are_refused_with_both_hashes(delta: Delta) -> None:
    other = tiny_generator(seed=1)
    found = weights_sha256(other)
    with pytest.raises(UsageError, match=rf"{delta.base_sha256[:12]}.*{found[:12]}"):
        apply_delta(other, delta)
    assert weights_sha256(other) == found
    assert other.lineage == ()


@pytest.mark.parametrize("name", ["conv1.weight", "to_img.bias"])
def test_tampered_delta_leaves_the_generator_alone(base: MobileStyleGAN, delta: Delta, name: str) -> None:
    tampered = {key: tensor.clone() for key, tensor in delta.tensors.items()}
    tampered[name].flatten()[0] ^= 1
    with pytest.raises(IntegrityError, match="does not lead to the promised weights"):
        apply_delta(base, replace(delta, tensors=tampered))
    assert weights_sha256(base) == delta.base_sha256
    assert base.lineage == ()


def test_tampered_delta_is_not_rolled_back(base: MobileStyleGAN, delta: Delta) -> None:
    apply_delta(base, delta)
    tampered = {key: tensor ^ 1 for key, tensor in delta.tensors.items()}
    with pytest.raises(IntegrityError):
        rollback(base, replace(delta, tensors=tampered))
    assert weights_sha256(base) == delta.result_sha256
    assert base.lineage == (delta.sha256,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conv1.weight", torch.ones(3, dtype=torch.int32)),
        ("to_img.bias", torch.ones(1, dtype=torch.int32)),  # would broadcast
        ("to_img.bias", torch.ones(12, dtype=torch.int16)),
        ("nothing", torch.ones(1, dtype=torch.int32)),
    ],
    ids=["shape", "broadcast", "dtype", "name"],
)
def test_tensor_that_does_not_fit_is_an_integrity_error(
    base: MobileStyleGAN, delta: Delta, name: str, value: torch.Tensor
) -> None:
    with pytest.raises(IntegrityError, match=f"changes '{name}'"):
        apply_delta(base, replace(delta, tensors=delta.tensors | {name: value}))
    assert weights_sha256(base) == delta.base_sha256
