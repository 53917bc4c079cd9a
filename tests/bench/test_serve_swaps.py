"""Exchanges under load: which requests met one, which images are not of their version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from changed_generators import Chain, chain
from hammering import latents
from tiny import tiny_generator

from guide_fast.bench import serve_swaps
from guide_fast.bench.open_loop import Offered
from guide_fast.errors import IntegrityError
from guide_fast.serve.batcher import Batcher
from guide_fast.serve.torch_session import TorchSession


@pytest.fixture
def mobile(tmp_path: Path) -> Chain:
    return chain(tiny_generator(), tmp_path)


def test_exchanges_are_measured_and_end_where_they_began(mobile: Chain) -> None:
    session = TorchSession(mobile.generator)
    batcher = Batcher(session)
    z, arrivals = latents(3, 16), np.linspace(0, 0.5, 60)
    found = serve_swaps.measure(session, batcher, z, arrivals, mobile.deltas[0], every=0.02, timeout=5)
    batcher.close()
    assert found["wrong"] == 0 and found["versions"] == sorted(mobile.hashes[:2])
    assert len(found["exchange_seconds"]) == len(found["prepare_seconds"]) >= 4
    assert len(found["around"]) + len(found["apart"]) == 60 and found["around"]
    assert session.version.weights_sha256 == mobile.hashes[0]


def test_failing_exchange_ends_the_measurement(mobile: Chain) -> None:
    session = TorchSession(mobile.generator)
    mobile.deltas[0].write_bytes(mobile.deltas[0].read_bytes()[:-9])
    exchanges = serve_swaps.Exchanges(session, mobile.deltas[0], 0.001)
    with pytest.raises(IntegrityError), exchanges:
        exchanges._thread.join(10)


def test_request_that_meets_an_exchange_is_told_from_others() -> None:
    found = Offered(np.array([0.0, 1.0, 2.0, 3.0]), [0.5, 2.2, None, 3.5], started=10.0)
    around, apart = serve_swaps.split(found, [(11.9, 12.1), (13.5, 13.6)])
    assert around == pytest.approx([1.2]) and apart == pytest.approx([0.5, 0.5])


def test_image_of_another_version_is_counted() -> None:
    pictures = {"a": np.zeros((2, 3, 1, 1)), "b": np.ones((2, 3, 1, 1))}
    good = [("a", np.zeros((3, 1, 1))), None, ("b", np.ones((3, 1, 1)))]
    assert serve_swaps.wrong(good, pictures) == 0
    bad = [("a", np.ones((3, 1, 1))), ("c", np.zeros((3, 1, 1))), ("b", np.array([[[1.0]], [[1.0]], [[0.0]]]))]
    assert serve_swaps.wrong(bad, pictures) == 3
