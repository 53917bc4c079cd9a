"""Images, exchanges of weights, what is counted of both."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from changed_generators import Chain

from guide_fast.errors import BusyError, GuideFastError
from guide_fast.serve.serving import Serving
from guide_fast.serve.torch_session import TorchSession


def test_swaps_are_counted_and_the_metrics_name_the_weights(
    mobile: Chain, damaged: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(TorchSession(mobile.generator))
    with caplog.at_level(logging.INFO, "guide_fast.serve"):
        serving.apply(mobile.deltas[0])
        for refused in ("flipped bit", "other base"):
            with pytest.raises(GuideFastError):
                serving.apply(damaged["flipped bit"] if refused == "flipped bit" else mobile.deltas[0])
    text = serving.registry.text()
    assert 'guide_fast_swaps_total{kind="apply",outcome="done"} 1' in text
    assert 'guide_fast_swaps_total{kind="apply",outcome="refused"} 2' in text
    assert f'guide_fast_weights_info{{deltas="1",sha256="{mobile.hashes[1]}"}} 1' in text
    assert "guide_fast_swap_exchange_seconds_count 1" in text
    assert mobile.hashes[1][:12] in caplog.text and "refused" in caplog.text
    serving.rollback()
    assert f'deltas="0",sha256="{mobile.hashes[0]}"' in serving.registry.text()
    serving.close()
    assert mobile.hashes[0] in serving.registry.text()  # still readable


def test_description_is_plain_values(mobile: Chain) -> None:
    serving = Serving(TorchSession(mobile.generator))
    assert serving.describe() == {
        "generator": "tiny",
        "runtime": "torch",
        "resolution": 32,
        "z_dim": 16,
        "w_shape": [8, 16],
        "c_dim": 0,
        "weights_sha256": mobile.hashes[0],
        "lineage": [],
    }
    serving.close()


def test_nothing_is_exchanged_once_it_closes(mobile: Chain) -> None:
    serving = Serving(TorchSession(mobile.generator))
    future = serving.submit(z=[1.0] * 16)
    assert serving.close()
    assert future.done() and not future.exception()
    for call in (lambda: serving.apply(mobile.deltas[0]), serving.rollback, lambda: serving.submit(z=[1.0] * 16)):
        with pytest.raises(BusyError, match="shutting down"):
            call()
