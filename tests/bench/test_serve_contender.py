"""A contender answers questions about its session; one that cannot says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from changed_generators import Chain, chain
from hammering import latents
from tiny import tiny_generator

from guide_fast.bench.serve_contender import Contender, opened
from guide_fast.bench.serve_swaps import STEP
from guide_fast.errors import UsageError
from guide_fast.serve.torch_session import TorchSession

Z = latents(2, 16).tolist()


@pytest.fixture
def mobile(tmp_path: Path) -> Chain:
    return chain(tiny_generator(), tmp_path)


@pytest.fixture
def contender(mobile: Chain) -> Contender:
    return Contender(TorchSession(mobile.generator), queue=4, workers=1)


def test_images_capacity_latencies_are_answered_as_json(contender: Contender, mobile: Chain, tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    assert contender.answer({"ask": "images", "z": Z, "path": str(path)}) == {"resolution": 32}
    wanted = TorchSession(mobile.generator).render(z=Z).images[:, :, ::STEP, ::STEP]
    assert np.array_equal(np.load(path), wanted)
    assert contender.answer({"ask": "capacity", "z": Z, "seconds": 0.05})["images_per_second"] > 1
    load = {"ask": "load", "z": Z, "rate": 100.0, "seconds": 0.2, "seed": 0, "timeout": 5.0}
    answer = json.loads(json.dumps(contender.answer(load), allow_nan=False))
    assert len(answer["latencies"]) > 5 and all(value > 0 for value in answer["latencies"])
    contender.batcher.close()


def test_too_much_load_leaves_requests_without_an_image(contender: Contender) -> None:
    load = {"ask": "load", "z": Z, "rate": 5000.0, "seconds": 0.2, "seed": 0, "timeout": 5.0}
    assert None in contender.answer(load)["latencies"]
    contender.batcher.close()


def test_swaps_are_measured_where_weights_can_be_exchanged(contender: Contender, mobile: Chain) -> None:
    asked = {"ask": "swaps", "z": Z, "rate": 50.0, "seconds": 0.3, "seed": 0, "timeout": 5.0, "every": 0.02}
    found = contender.answer(asked | {"delta": str(mobile.deltas[0])})
    assert found["wrong"] == 0 and found["exchange_seconds"]
    assert "can only be applied" in contender.answer(asked | {"delta": str(mobile.deltas[1])})["error"]

    class Fixed:
        shape, runtime, batch = contender.session.shape, "fixed", 1

    contender.session = Fixed()
    assert "fixed has weights that cannot be exchanged" in contender.answer(asked | {"delta": "d"})["error"]
    contender.batcher.close()


def test_runtime_that_is_not_installed_is_said_by_the_process() -> None:
    program = (
        "import sys; sys.modules['openvino'] = None; sys.argv = ['x', '--worker', 'a', '--threads', '1', "
        "'--session', 'openvino', '--queue', '1']; from guide_fast.bench import serve_contender; "
        "sys.exit(serve_contender.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], input="{}\n", capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "openvino is not installed" in json.loads(done.stdout)["error"]


def test_openvino_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="openvino is not installed"):
        opened("openvino", 1, 1, None)
