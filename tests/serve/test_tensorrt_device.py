"""Engines on a device whose memory is the host's: addresses, shapes, order of calls; the results are those of torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from built_engines import Made
from built_engines import made as made  # a fixture
from fake_tensorrt import HostCuda, runtime_of
from hammering import latents
from tensorrt_graphs import tensorrt_rtx as tensorrt_rtx  # a fixture

from guide_fast.errors import GuideFastError, IntegrityError
from guide_fast.export.cuda_driver import Gpu
from guide_fast.export.folder import ExportedGenerator
from guide_fast.export.tensorrt_flavour import Tensorrt
from guide_fast.serve.tensorrt_device import DeviceEngines
from guide_fast.serve.tensorrt_refit import every_value, plans_for
from guide_fast.serve.tensorrt_session import TensorrtSession
from guide_fast.serve.torch_session import TorchSession

CARD = Gpu("RTX 4090", 89)


class Bench:
    """A session on engines of a kind, its device."""

    def __init__(self, made: Made, tensorrt: Tensorrt, folder: Path, kind: str, **more: object) -> None:
        self.cuda, self.cache = HostCuda(), folder / "cache"
        self.exported = ExportedGenerator.load(made.of_kind(kind, folder / "engines", **more))
        self.tensorrt = runtime_of(self.exported, ExportedGenerator.load(made.onnx), tensorrt, self.cuda)
        self.session = TensorrtSession(self.exported.folder, engines=self.engines)

    def engines(self, exported: ExportedGenerator) -> DeviceEngines:
        return DeviceEngines(self.tensorrt, self.cuda, plans_for(exported, CARD), cache=self.cache)


@pytest.mark.parametrize("kind", ["refit", "inputs", "fixed"])
def test_images_are_those_of_torch_before_and_after_deltas(
    made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path, kind: str
) -> None:
    bench, other = Bench(made, tensorrt_rtx, tmp_path, kind), TorchSession(made.chain.generator)
    z = latents(5, 16)
    assert np.abs(bench.session.render(z=z).images - other.render(z=z).images).max() <= 2e-4
    if kind != "fixed":
        for delta in made.chain.deltas:
            for one in (bench.session, other):
                one.apply(delta)
            assert np.abs(bench.session.render(z=z).images - other.render(z=z).images).max() <= 2e-4
        bench.session.rollback()
        other.rollback()
        assert np.abs(bench.session.render(z=z).images - other.render(z=z).images).max() <= 2e-4
    bench.session.close()
    assert bench.cuda.inside == 0


def test_batches_allocate_nothing_once_the_largest_was_there(
    made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path
) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "inputs")
    bench.session.render(z=latents(4, 16))
    count = len(bench.cuda.memory)
    for size in (1, 3, 4):
        bench.session.render(z=latents(size, 16))
    assert len(bench.cuda.memory) == count
    bench.session.apply(made.chain.deltas[0])
    changed = bench.exported.changed_by(made.chain.deltas[0])
    assert len(bench.cuda.memory) == count + len(changed)  # the rest is shared by both versions


def test_what_was_compiled_is_kept_and_read_again(made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "fixed")
    bench.session.close()
    kept = sorted(bench.cache.iterdir())
    assert [path.name for path in kept] == sorted(f"{p.sha256}.cache" for p in plans_for(bench.exported, CARD).values())
    bench.engines(bench.exported).keep_compiled()
    assert {path.read_bytes() for path in kept} == {b"compiled again"}


def test_a_cache_that_cannot_be_written_costs_a_warning(made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "fixed")
    bench.cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="compiled again next time"):
        bench.session.close()


def test_a_device_without_room_leaves_the_old_version(made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "inputs")
    z = latents(1, 16)
    before = bench.session.render(z=z)
    bench.cuda.limit = 1
    with pytest.raises(GuideFastError, match="no room"):
        bench.session.apply(made.chain.deltas[0])
    after = bench.session.render(z=z)
    assert after.version == before.version and np.array_equal(after.images, before.images)


def test_a_plan_that_does_not_load_is_named(made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "refit")
    plan = plans_for(bench.exported, CARD)["synthesis"].path
    whole = plan.read_bytes()
    for content, reason in ((whole + b"more", "Serialization assertion failed"), (b"PK" + whole, "malformed engine")):
        plan.write_bytes(content)  # after its hash was checked
        with pytest.raises(IntegrityError, match=rf"synthesis.sm89.plan is no engine .*\({reason}\); export"):
            bench.engines(bench.exported)


def test_a_weight_without_address_is_no_image(made: Made, tensorrt_rtx: Tensorrt, tmp_path: Path) -> None:
    bench = Bench(made, tensorrt_rtx, tmp_path, "inputs")
    engines = bench.engines(bench.exported)
    held = engines.hold(every_value(bench.exported))
    mapping = plans_for(bench.exported, CARD)["mapping"]
    known = {"z": latents(2, 16), "psi": np.ones(2, np.float32)}
    with pytest.raises(GuideFastError, match=r"the engine .*mapping.sm89.plan failed, it did not run"):
        engines.run(mapping, known, {})
    assert engines.fetch(engines.run(mapping, known, held)["ws"]).shape[0] == 2
    with pytest.raises(GuideFastError, match=r"mapping.sm89.plan failed, input 'z' of shape \[5, 16\]"):
        engines.run(mapping, {"z": latents(5, 16), "psi": np.ones(5, np.float32)}, held)
