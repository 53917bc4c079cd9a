"""A whole run on a GPU: the same delta each time, near to that of a CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from stopping import generator as generator
from stopping import stand_ins as stand_ins  # fixtures
from tiny import CONFIG

from guide_fast import pipeline
from guide_fast.models.mobile_stylegan import MobileStyleGAN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("stand_ins"),
]


def test_run_on_a_gpu_repeats_to_the_byte(generator: MobileStyleGAN) -> None:
    hashes = {pipeline.forget(copy.deepcopy(generator).cuda(), seed=7, config=CONFIG).delta.sha256 for _ in range(2)}
    assert len(hashes) == 1


def test_run_on_a_gpu_forgets_as_on_a_cpu(generator: MobileStyleGAN) -> None:
    config = replace(CONFIG, ltu=replace(CONFIG.ltu, precision="fp32", layers="all"))
    there, here = (
        pipeline.forget(on, seed=7, config=config).metrics for on in (copy.deepcopy(generator).cuda(), generator)
    )
    for name in ("forgotten", "retained", "stranger_mean"):
        assert there[name] == pytest.approx(here[name], abs=0.01)
