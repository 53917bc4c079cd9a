"""A session on engines: one version an image, exchanges that are exact, refusals that leave the old engines serving."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built_engines import Made
from built_engines import made as made  # a fixture
from hammering import expected, hammer, latents
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.export.cuda_driver import Gpu, found
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.export.tensorrt_folder import export_tensorrt
from guide_fast.export.tensorrt_plan import PlanSettings
from guide_fast.serve.session import Session
from guide_fast.serve.tensorrt_session import TensorrtSession
from guide_fast.serve.torch_session import TorchSession

pytest.importorskip("onnxruntime")
from host_engines import HostEngines

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=["inputs", "refit"])
def start(request: pytest.FixtureRequest, made: Made, tmp_path: Path) -> Callable[..., TensorrtSession]:
    """A session of either kind on engines in ONNX Runtime; `start.built` has the engines."""
    source = made.of_kind(request.param, tmp_path / "engines")
    built: list[HostEngines] = []

    def engines(exported: ExportedGenerator, *, pause: float) -> HostEngines:
        built.append(HostEngines(exported, made.onnx, pause=pause))
        return built[-1]

    def open_it(*, pause: float = 0.0, **options: Any) -> TensorrtSession:
        return TensorrtSession(source, engines=partial(engines, pause=pause), **options)

    open_it.built, open_it.kind = built, request.param  # type: ignore[attr-defined]
    return open_it


def test_images_are_those_of_torch(start: Callable[..., TensorrtSession], made: Made) -> None:
    session, other = start(), TorchSession(made.chain.generator)
    assert isinstance(session, Session) and session.shape == other.shape and session.version == other.version
    assert session.batch == 4 and session.runtime == "tensorrt_rtx"
    z = latents(5, session.shape.z_dim)  # more than a batch
    for given in ({"z": z}, {"z": z, "truncation": 0.7}, {"z": z, "truncation": [0.0, 1.0, 0.5, -0.5, 2.0]}):
        found_images, wanted = session.render(**given), other.render(**given)
        assert found_images.images.dtype == np.float32
        assert np.abs(found_images.images - wanted.images).max() <= 2e-4
    w = np.random.default_rng(0).standard_normal((1, session.shape.num_ws, session.shape.w_dim), dtype=np.float32)
    assert np.abs(session.render(w=w).images - other.render(w=w).images).max() <= 2e-4
    session.warm_up()


def test_deltas_go_up_and_down(start: Callable[..., TensorrtSession], made: Made) -> None:
    session, other = start(), TorchSession(made.chain.generator)
    z = latents(1, session.shape.z_dim)
    steps = [*(("apply", delta) for delta in made.chain.deltas), ("rollback", None), ("rollback", None)]
    steps += [("apply", made.chain.deltas[0]), ("rollback", None)]
    seen = [session.render(z=z).images]
    for what, delta in steps:
        for one in (session, other):
            swap = one.apply(delta) if what == "apply" else one.rollback()
            assert swap.before != swap.after == one.version
        seen.append(session.render(z=z).images)
        assert np.abs(seen[-1] - other.render(z=z).images).max() <= 2e-4
        assert np.abs(seen[-1] - seen[-2]).max() > 1e-2
    assert np.array_equal(seen[0], seen[4]) and np.array_equal(seen[0], seen[6])
    with pytest.raises(UsageError, match="no delta that it could roll back"):
        session.rollback()


def test_no_image_is_of_two_versions(start: Callable[..., TensorrtSession], made: Made) -> None:
    session = start(pause=0.001)
    z = latents(3, session.shape.z_dim)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        rendered = session.render(z=one)
        return rendered.images[0], rendered.version.weights_sha256

    images = {
        version: np.concatenate([session_at.render(z=one[None]).images for one in z])
        for version, session_at in at_each_version(start, made)
    }
    seen = hammer(session, render, made.chain.deltas, images, z, threads=3, seconds=1.0, least_swaps=8)
    assert not seen.wrong, seen.wrong[:3]
    assert len(seen.seen) >= 2


def at_each_version(start: Callable[..., TensorrtSession], made: Made) -> list[tuple[str, TensorrtSession]]:
    sessions = []
    for count in range(len(made.chain.deltas) + 1):
        session = start()
        for delta in made.chain.deltas[:count]:
            session.apply(delta)
        sessions.append((session.version.weights_sha256, session))
    return sessions


def test_a_delta_of_other_weights_leaves_the_old_engines(
    start: Callable[..., TensorrtSession], made: Made, tmp_path: Path
) -> None:
    session = start()
    z = latents(1, session.shape.z_dim)
    before = session.render(z=z)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(made.chain.deltas[0].read_bytes()[:-8])
    for delta, error in ((made.chain.deltas[1], UsageError), (damaged, IntegrityError), (tmp_path / "no", UsageError)):
        with pytest.raises(error):
            session.apply(delta)
        after = session.render(z=z)
        assert after.version == before.version and np.array_equal(after.images, before.images)
    session.apply(made.chain.deltas[0])
    assert session.version.weights_sha256 == made.chain.hashes[1]


def test_a_refit_that_fails_half_way_leaves_the_old_engines(made: Made, tmp_path: Path) -> None:
    built: list[HostEngines] = []

    def engines(exported: ExportedGenerator) -> HostEngines:
        built.append(HostEngines(exported, made.onnx))
        return built[-1]

    session = TensorrtSession(made.of_kind("refit", tmp_path / "engines"), engines=engines)
    first, second = made.chain.deltas
    session.apply(first)
    z = latents(1, session.shape.z_dim)
    before = session.render(z=z)
    for copy in built:
        copy.fail = True
    with pytest.raises(GuideFastError, match="a subset of weights"):
        session.apply(second)
    assert session.version == before.version and np.array_equal(session.render(z=z).images, before.images)
    for copy in built:
        copy.fail = False
    session.apply(second)
    session.rollback()
    assert np.array_equal(session.render(z=z).images, before.images)
    assert len(built) == 3  # the half-written one was thrown away


def test_stripped_engines_get_their_weights_at_the_start(made: Made, tmp_path: Path) -> None:
    built: list[HostEngines] = []

    def engines(exported: ExportedGenerator) -> HostEngines:
        built.append(HostEngines(exported, made.onnx))
        built[-1].weights = {key: np.zeros_like(value) for key, value in built[-1].weights.items()}
        return built[-1]

    session = TensorrtSession(made.of_kind("refit", tmp_path / "engines", stripped=True), engines=engines)
    other = TorchSession(made.chain.generator)
    for one in (session, other):
        one.apply(made.chain.deltas[0])
    z = latents(1, session.shape.z_dim)
    assert np.abs(session.render(z=z).images - other.render(z=z).images).max() <= 2e-4
    assert [copy.refits for copy in built] == [1, 2]


def test_fixed_engines_take_no_delta(made: Made, tmp_path: Path) -> None:
    session = TensorrtSession(
        made.of_kind("fixed", tmp_path / "engines"), engines=lambda exported: HostEngines(exported, made.onnx)
    )
    with pytest.raises(UsageError, match=r"built with --weights fixed, no delta can be applied .* refit or inputs"):
        session.apply(made.chain.deltas[0])
    assert session.render(z=latents(1, session.shape.z_dim)).version == session.version


def test_a_closed_session_says_so_and_lets_go(start: Callable[..., TensorrtSession], made: Made) -> None:
    session = start()
    session.close()
    session.close()
    assert [copy.kept for copy in start.built] == [1]  # type: ignore[attr-defined]
    for call in (lambda: session.render(z=latents(1, 16)), lambda: session.apply(made.chain.deltas[0])):
        with pytest.raises(UsageError, match="closed; open another one"):
            call()


def test_a_batch_larger_than_the_engines_is_refused(made: Made) -> None:
    with pytest.raises(UsageError, match=r"batch is 5, the engines in .* take 1 to 4; export with --max-batch"):
        TensorrtSession(made.engines, batch=5)


@pytest.mark.skipif(isinstance(found(), Gpu), reason="with a GPU the session opens, or says which one it needs")
def test_without_a_gpu_the_way_out_is_said(made: Made) -> None:
    with pytest.raises(UsageError, match="TensorRT engines need an NVIDIA GPU, and no CUDA driver is installed; serve"):
        TensorrtSession(made.engines)


def test_engines_of_another_version_do_not_start(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"were built by TensorRT for RTX 1.4.0.76, here is"):
        TensorrtSession(made.of_kind("refit", tmp_path / "engines", version="1.4.0.76"))


def test_a_truncated_plan_does_not_start(made: Made, tmp_path: Path) -> None:
    source = made.of_kind("refit", tmp_path / "engines")
    plan = source / "synthesis.sm89.plan"
    plan.write_bytes(plan.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match=r"synthesis.sm89.plan is damaged"):
        TensorrtSession(source)


def test_the_session_needs_no_torch(made: Made) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from guide_fast.serve.tensorrt_session import TensorrtSession\n"
        "import guide_fast.serve.tensorrt_device\n"
        f"try: TensorrtSession({str(made.engines)!r})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("UsageError TensorRT engines need an NVIDIA GPU") or isinstance(found(), Gpu)


@pytest.mark.parametrize("weights", [pytest.param(kind, marks=GPU) for kind in ("refit", "inputs", "fixed")])
def test_on_a_gpu_engines_render_swap_and_roll_back(
    tensorrt_rtx: Tensorrt, made: Made, tmp_path: Path, weights: str
) -> None:
    settings = PlanSettings(weights, max_batch=2, strip=weights == "refit")
    try:
        export_tensorrt(made.onnx, tmp_path / "engines", tensorrt=tensorrt_rtx, settings=settings)
    except UsageError as error:
        pytest.skip(str(error))  # the flavour builds nothing for this architecture
    session, other = TensorrtSession(tmp_path / "engines", cache=tmp_path / "cache"), TorchSession(made.chain.generator)
    z = latents(3, session.shape.z_dim)
    first = session.render(z=z).images
    assert np.abs(first - other.render(z=z).images).max() <= 1e-3
    if weights == "fixed":
        return
    for delta in made.chain.deltas:
        session.apply(delta)
        other.apply(delta)
        assert np.abs(session.render(z=z).images - other.render(z=z).images).max() <= 1e-3
    for _ in made.chain.deltas:
        session.rollback()
    assert np.array_equal(session.render(z=z).images, first)
    errors: list[str] = []
    stop = threading.Event()
    images = expected(session, made.chain.deltas, z[:1])

    def render() -> None:
        while not stop.is_set():
            rendered = session.render(z=z[:1])
            if not np.array_equal(rendered.images, images[rendered.version.weights_sha256]):
                errors.append(rendered.version.weights_sha256)

    thread = threading.Thread(target=render)
    thread.start()
    for _ in range(10):
        session.apply(made.chain.deltas[0])
        session.rollback()
    stop.set()
    thread.join()
    assert not errors
    session.close()
    assert any((tmp_path / "cache").iterdir())
