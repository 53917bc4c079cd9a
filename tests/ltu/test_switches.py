"""Every switch leaves the result as it is, within rounding; one that cannot run where it is on says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny import TinyPerceptual
from torch import Tensor

from guide_fast.config import LtuConfig
from guide_fast.errors import UsageError
from guide_fast.kernels import FusedAdam
from guide_fast.ltu import Bank, Networks, Unlearned, unlearn
from guide_fast.ltu.switches import arranged, learning_rate, make_optimizer, settle
from guide_fast.models.mobile_stylegan import MobileStyleGAN

CPU = torch.device("cpu")
# Of the length of the whole change. Adam's first steps divide a gradient by its own size, so that one that is zero but
# for rounding moves its weight by the learning rate, whichever way.
TOLERANCE = 0.01


@pytest.fixture
def run(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, config: LtuConfig
) -> Callable[..., Unlearned]:
    def call(**settings: Any) -> Unlearned:
        changed = replace(config, **{"layers": "all", "steps": 3, "warm_start": False} | settings)
        return unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=changed)

    return call


def difference(teacher: MobileStyleGAN, one: Unlearned, other: Unlearned) -> float:
    """Length of the difference of two results, over that of the change."""
    before, a, b = (
        torch.nn.utils.parameters_to_vector(g.parameters()) for g in (teacher, one.generator, other.generator)
    )
    return float((a - b).norm() / (a - before).norm())


@pytest.mark.parametrize(
    "switch", ["batched", "cached_target", "banked", "frozen", "restrict_backward", "channels_last", "fused_adam"]
)
def test_switch_turned_off_gives_the_same_result(
    run: Callable[..., Unlearned], teacher: MobileStyleGAN, switch: str
) -> None:
    on, off = run(), run(**{switch: False})
    assert difference(teacher, on, off) < TOLERANCE
    for one, other in zip(on.curve, off.curve, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_difference_of_other_requests_is_seen(run: Callable[..., Unlearned], teacher: MobileStyleGAN) -> None:
    assert difference(teacher, run(), run(seed=1)) > 10 * TOLERANCE


@pytest.mark.slow
def test_compiled_step_gives_the_same_result(run: Callable[..., Unlearned], teacher: MobileStyleGAN) -> None:
    assert difference(teacher, run(), run(compiled=True)) < TOLERANCE


@pytest.mark.parametrize("setting", [{"cuda_graph": "on"}, {"identity_stream": "on"}, {"precision": "half"}])
def test_switch_that_needs_a_gpu_is_refused_without_one(run: Callable[..., Unlearned], setting: dict[str, str]) -> None:
    (name,) = setting
    with pytest.raises(UsageError, match=rf"ltu\.{name} = \w+ needs a CUDA device.*on cpu: move it there"):
        run(**setting)


def test_auto_is_plain_on_a_cpu(config: LtuConfig) -> None:
    found = settle(config, CPU)
    assert not any((found.half, found.identity_stream, found.cuda_graph, found.compiled))


def test_auto_takes_all_of_a_gpu(config: LtuConfig) -> None:
    cuda = torch.device("cuda")
    found = settle(config, cuda)
    assert all((found.half, found.identity_stream, found.cuda_graph)) and not found.compiled
    plain = replace(config, precision="fp32", identity_stream="off", cuda_graph="off")
    assert not any((settle(plain, cuda).half, settle(plain, cuda).identity_stream, settle(plain, cuda).cuda_graph))


def test_graph_of_a_compiled_step_is_refused(config: LtuConfig) -> None:
    with pytest.raises(UsageError, match=r"excludes ltu\.compiled"):
        settle(replace(config, cuda_graph="on", compiled=True), torch.device("cuda"))


@pytest.mark.parametrize(("fused", "kind"), [(True, FusedAdam), (False, torch.optim.Adam)])
def test_adam_is_the_one_asked_for(config: LtuConfig, fused: bool, kind: type) -> None:
    assert type(make_optimizer([torch.nn.Parameter(torch.zeros(2))], replace(config, fused_adam=fused))) is kind


def test_teacher_with_networks_is_arranged_for_the_time_being(
    teacher: MobileStyleGAN, networks: Networks, config: LtuConfig
) -> None:
    off = replace(config, frozen=False, channels_last=False)
    layouts = [p.is_contiguous(memory_format=torch.channels_last) for p in networks.perceptual.parameters()]
    with arranged(teacher, networks, off):
        assert not teacher.channels_last
        assert all(p.requires_grad and p.is_contiguous() for p in networks.perceptual.parameters())
        networks.perceptual.first.weight.grad = torch.ones_like(networks.perceptual.first.weight)
    assert teacher.channels_last
    assert not any(p.requires_grad for p in networks.perceptual.parameters())
    assert networks.perceptual.first.weight.grad is None
    assert len(layouts) == len(list(TinyPerceptual().parameters()))


def test_learning_rate_rises_then_falls(config: LtuConfig) -> None:
    cosine = replace(config, lr=1.0, warmup=4, schedule="cosine", steps=14)
    rates = [learning_rate(cosine, i) for i in range(14)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.05
    constant = replace(cosine, schedule="constant")
    assert {learning_rate(constant, i) for i in range(4, 14)} == {1.0}


def test_paper_learning_rate_is_the_same_in_every_step(config: LtuConfig) -> None:
    assert {learning_rate(config, i) for i in range(config.steps)} == {config.lr}


def test_schedule_reaches_adam(run: Callable[..., Unlearned], teacher: MobileStyleGAN) -> None:
    assert difference(teacher, run(), run(warmup=3)) > 10 * TOLERANCE
